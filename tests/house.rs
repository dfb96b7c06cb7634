//! The house is in order: every program has its man page, its line in the README, its file in src/bin.

use std::path::Path;

/// The programs, and the one file that has them all.
fn programs() -> impl Iterator<Item = &'static s6::error::Program> {
    s6::programs::all().chain([&s6::multicall::PROGRAM])
}

/// Whether one of the sections has a page of that name.
fn man_page(name: &str) -> Option<String> {
    ["1", "8"].iter().find_map(|section| {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("doc/man/{name}.{section}"))).ok()
    })
}

#[test]
fn every_program_has_its_file_in_src_bin() {
    let mut files: Vec<String> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut programs: Vec<String> = programs().map(|p| p.name.to_owned()).collect();
    files.sort();
    programs.sort();
    assert_eq!(files, programs);
}

/// The letters of the options in a synopsis: what follows a dash at the beginning of a word.
fn letters(synopsis: &str) -> std::collections::BTreeSet<char> {
    synopsis
        .split([' ', '|', '[', ']'])
        .filter_map(|word| word.strip_prefix('-'))
        .filter(|word| !word.starts_with('-'))
        .flat_map(str::chars)
        .filter(|c| c.is_ascii_alphanumeric() || *c == '/')
        .collect()
}

#[test]
fn every_program_has_a_man_page_that_names_its_options() {
    for program in programs() {
        let page = man_page(program.name).unwrap_or_else(|| panic!("doc/man/{} is missing", program.name));
        for letter in letters(program.usage) {
            let named = page.lines().any(|line| {
                line.split_whitespace()
                    .collect::<Vec<_>>()
                    .windows(2)
                    .any(|pair| pair[0].ends_with("Fl") && (pair[1].starts_with(letter) || pair[1].contains(letter)))
            });
            assert!(named, "doc/man/{}: option -{letter} is not there", program.name);
        }
    }
}

#[test]
fn every_program_has_its_line_in_the_readme() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for program in programs() {
        assert!(readme.contains(&format!("| `{}` |", program.name)), "README.md: no row for {}", program.name);
    }
}

#[test]
fn every_program_is_in_the_tour() {
    let tour = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/man/s6.7")).unwrap();
    for program in s6::programs::all() {
        assert!(tour.contains(&format!("Xr {} ", program.name)), "doc/man/s6.7: {} is not there", program.name);
    }
}

#[test]
fn every_reference_to_a_page_of_ours_leads_to_it() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/man");
    let ours = |name: &str| name.starts_with("s6") || ["servicedir", "scandir", "fifodir", "ucspilogd"].contains(&name);
    for page in std::fs::read_dir(&pages).unwrap() {
        let page = page.unwrap();
        let text = std::fs::read_to_string(page.path()).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        for reference in words.windows(3).filter(|w| w[0].ends_with("Xr") && ours(w[1])) {
            let file = format!("{}.{}", reference[1], reference[2]);
            assert!(pages.join(&file).exists(), "{:?} refers to {file}, which is not there", page.file_name());
        }
    }
}
