//! C strings as the kernel takes them in argv and envp: thin pointers with a lifetime, no copy, no allocation.

use std::ffi::CStr;
use std::marker::PhantomData;

use libc::c_char;

/// A pointer to a C string that lives for `'a`, or the null pointer that ends an argv.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct CPtr<'a>(*const c_char, PhantomData<&'a CStr>);

impl<'a> CPtr<'a> {
    /// The end of an argv or envp.
    pub const NULL: CPtr<'static> = CPtr(std::ptr::null(), PhantomData);

    /// Points at `text`.
    pub const fn new(text: &'a CStr) -> Self {
        CPtr(text.as_ptr(), PhantomData)
    }

    /// Points at a C string that may yet change.
    ///
    /// # Safety
    /// The string ends with a NUL whenever it is read, and lives for `'a`.
    pub(super) const unsafe fn from_raw(text: *const c_char) -> Self {
        CPtr(text, PhantomData)
    }

    /// The string, or `None` for the end mark.
    pub fn get(self) -> Option<&'a CStr> {
        // SAFETY: a CPtr is null or was made from a CStr, or from a kernel-given argv, that lives for 'a.
        (!self.0.is_null()).then(|| unsafe { CStr::from_ptr(self.0) })
    }
}

impl<'a> From<&'a CStr> for CPtr<'a> {
    fn from(text: &'a CStr) -> Self {
        CPtr::new(text)
    }
}

/// The strings of an argv or envp, up to its end mark.
pub fn strings<'s, 'a>(list: &'s [CPtr<'a>]) -> impl Iterator<Item = &'a CStr> + use<'s, 'a> {
    list.iter().map_while(|p| p.get())
}

/// A slice over a null-terminated array of C strings, the end mark included.
///
/// # Safety
/// `list` is null-terminated, and it and its strings live and stay unchanged for `'a`.
pub(super) unsafe fn slice_from_raw<'a>(list: *const *const c_char) -> &'a [CPtr<'a>] {
    let mut count = 0;
    // SAFETY: by contract there is a null before the end of the array.
    while !unsafe { *list.add(count) }.is_null() {
        count += 1;
    }
    // SAFETY: CPtr is a transparent pointer, and count + 1 elements were just read or found to be the end.
    unsafe { std::slice::from_raw_parts(list.cast(), count + 1) }
}

/// The form `execve` takes. Panics if the end mark is missing: a bug of the caller.
pub(super) fn as_raw(list: &[CPtr<'_>]) -> *const *const c_char {
    assert!(list.last().is_some_and(|p| p.0.is_null()), "argv without its end");
    list.as_ptr().cast()
}
