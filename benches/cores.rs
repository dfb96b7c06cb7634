//! What one decision of each core costs, without a kernel: `cargo bench --bench cores`.

use std::ffi::CString;
use std::io::{Seek, Write};
use std::time::{Duration, Instant};

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};

use s6::events::matcher::Matcher;
use s6::fdholder::protocol;
use s6::log::lines::Lines;
use s6::log::script;
use s6::log::select::{BATCH, Selector};
use s6::supervision::supervise::core::{Command, Core, Event, Now};
use s6::supervision::svscan::core::{Id, Table};
use s6::sys::wait::WaitStatus;
use s6::tai::Tai64n;

fn main() {
    divan::main();
}

/// A service dies, finish runs and ends, and the pause is over: four events.
#[divan::bench]
fn supervise_restart(bencher: Bencher) {
    let mut now = Now::read();
    let mut core = Core::new(true, now.stamp);
    core.handle(now, Event::Begin);
    let started = Event::Started { pid: 100, ready_within: None, ping_within: None };
    core.handle(now, started);
    bencher.bench_local(|| {
        core.handle(now, Event::Died(WaitStatus::exited(0)));
        core.handle(now, Event::FinishStarted { pid: 101, limit: None });
        core.handle(now, Event::Died(WaitStatus::exited(0)));
        now.clock += Duration::from_secs(2);
        core.handle(now, Event::Timer);
        core.handle(now, black_box(started)).len()
    });
}

/// A command that changes nothing but a wish.
#[divan::bench]
fn supervise_command(bencher: Bencher) {
    let now = Now::read();
    let mut core = Core::new(false, now.stamp);
    core.handle(now, Event::Begin);
    bencher.bench_local(|| core.handle(now, Event::Command(black_box(Command::Down))).len());
}

/// A table of so many services, their supervisors running.
fn table(now: Instant, count: u64) -> Table {
    let mut table = Table::new(count as usize);
    scan(&mut table, now, &names(count));
    while let Some(slot) = table.next_due(now) {
        table.started(now, slot, slot as i32 + 2);
    }
    table
}

fn names(count: u64) -> Vec<(CString, Id)> {
    (0..count).map(|inode| (CString::new(format!("service-{inode}")).unwrap(), Id { device: 1, inode })).collect()
}

fn scan(table: &mut Table, now: Instant, names: &[(CString, Id)]) {
    table.begin_scan();
    for (name, id) in names {
        table.found(now, name, *id, None);
    }
    table.end_scan(true, |_| {});
}

/// A supervisor dies and is started again: the same for any number of others.
#[divan::bench(args = [10, 100, 1_000, 10_000])]
fn svscan_death(bencher: Bencher, count: u64) {
    let mut now = Instant::now();
    let mut table = table(now, count);
    bencher.bench_local(|| {
        now += Duration::from_secs(2);
        table.died(now, black_box(7));
        let slot = table.next_due(now).unwrap();
        table.started(now, slot, 7);
    });
}

/// A scan in which nothing is new.
#[divan::bench(args = [10, 100, 1_000, 10_000])]
fn svscan_scan(bencher: Bencher, count: u64) {
    let now = Instant::now();
    let mut table = table(now, count);
    let names = names(count);
    bencher.counter(ItemsCount::new(count)).bench_local(|| scan(&mut table, now, &names));
}

/// Lines as a system writes them, about a megabyte.
fn log_text() -> Vec<u8> {
    let mut text = Vec::new();
    for i in 0..10_000 {
        let _ = match i % 5 {
            0 => writeln!(text, "sshd[{i}]: Accepted publickey for alice from 10.0.0.{} port 22 ssh2", i % 256),
            1 => writeln!(
                text,
                "nginx: 192.168.1.{} - - \"GET /item/{i} HTTP/1.1\" 200 {i} \"-\" \"Mozilla/5.0\"",
                i % 256
            ),
            2 => writeln!(text, "app[{i}]: level=debug msg=\"request handled\" id={i:016x} dur=0.{i}ms"),
            3 => writeln!(text, "CRON[{i}]: (root) CMD (test -x /usr/sbin/anacron || run-parts /etc/cron.hourly)"),
            _ => writeln!(text, "postfix/smtpd[{i}]: connect from unknown[172.16.0.{}]", i % 256),
        };
    }
    text
}

/// Reading a file in pieces and cutting it into lines.
#[divan::bench]
fn log_split(bencher: Bencher) {
    let text = log_text();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&text).unwrap();
    bencher.counter(BytesCount::of_slice(&text)).bench_local(|| {
        file.rewind().unwrap();
        let mut small = [0; 1024];
        let mut lines = Lines::new(&mut small, 0);
        let mut ranges = vec![0..0; BATCH];
        let mut count = 0;
        while lines.read(&file).unwrap() > 0 {
            loop {
                let found = lines.find(&mut ranges);
                count += found;
                if found < BATCH {
                    break;
                }
            }
            lines.forget();
        }
        count
    });
}

/// Selecting lines by no, one and five expressions.
#[divan::bench(args = ["1", "-debug 1", "-level=debug -CRON\\[[0-9]+\\]: +(error|fail|panic) -^nginx:.*(200|304) -from.unknown 1"])]
fn log_select(bencher: Bencher, words: &str) {
    let words: Vec<CString> = words.split(' ').map(|word| CString::new(word).unwrap()).collect();
    let mut script = script::parse(words.iter().map(CString::as_c_str)).unwrap();
    let mut selector = Selector::new(&mut script).unwrap();
    let text = log_text();
    let mut end = 0;
    let lines: Vec<_> = text
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| {
            end += line.len();
            end - line.len()..end - 1
        })
        .collect();
    bencher.counter(BytesCount::of_slice(&text)).bench_local(|| {
        let mut acts = 0;
        for batch in lines.chunks(BATCH) {
            selector.select(&text, batch, |_, _| acts += 1);
        }
        acts
    });
}

/// A letter of a service, and the one that was waited for.
#[divan::bench]
fn ftrig_match(bencher: Bencher) {
    let mut matcher = Matcher::new(b"U").unwrap();
    bencher.bench_local(|| {
        let mut letters: &[u8] = black_box(b"u");
        let nothing = matcher.take_chunk(&mut letters);
        let mut letters: &[u8] = black_box(b"U");
        (nothing, matcher.take_chunk(&mut letters))
    });
}

/// A request to store, written and understood.
#[divan::bench]
fn fdholder_request(bencher: Bencher) {
    let limit = Tai64n::never();
    bencher.bench_local(|| {
        let mut body = vec![b'S'];
        body.extend(limit.pack());
        protocol::put_id(&mut body, black_box(c"unix:/run/service/web/socket")).unwrap();
        protocol::parse(black_box(&body), 1).is_some()
    });
}

/// Understanding dump data with as many entries as one message has.
#[divan::bench]
fn fdholder_dump(bencher: Bencher) {
    let mut body = vec![b'.'];
    let count = s6::unixmessage::MAX_FDS;
    for i in 0..count {
        body.extend(Tai64n::never().pack());
        protocol::put_id(&mut body, &CString::new(format!("unix:/run/service/{i}")).unwrap()).unwrap();
    }
    bencher.counter(ItemsCount::new(count)).bench_local(|| protocol::parse(black_box(&body), count).is_some());
}
