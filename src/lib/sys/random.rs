//! Random bytes for names that must not collide.

use super::Errno;

/// Fills `buffer` (at most 256 bytes) from the kernel's generator.
pub fn fill(buffer: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: pointer and length are those of one live, writable slice.
    #[cfg(target_os = "linux")]
    let filled = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    let filled = unsafe { libc::getentropy(buffer.as_mut_ptr().cast(), buffer.len()) };
    Errno::result(filled).map(drop)
}

/// Six letters and digits, for a name that is to be new.
pub fn letters() -> Result<[u8; 6], Errno> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0u8; 6];
    fill(&mut random)?;
    Ok(random.map(|byte| ALPHABET[usize::from(byte % 64)]))
}
