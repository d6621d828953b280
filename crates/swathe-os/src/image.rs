//! Code addresses that survive a re-exec, and a fingerprint of the program they belong to.
//!
//! A worker has loaded the same code as its parent, but address space randomisation puts it elsewhere. What stays is
//! the distance of a function from the start of the object (executable or shared library) that holds it. A
//! [`CodeRef`] is that distance with the identity of the object: [`code_ref`] makes one from an address in the
//! parent, [`resolve`] turns it back into an address in the worker.
//!
//! One object is known without a name: the *home object*, which holds this very code. It is the executable, or a shared
//! library inside somebody else's program; then parent and worker may be different executables that have loaded the
//! same library. [`build_id`] is its fingerprint, compared once, at the handshake. Any other object is known by its own
//! fingerprint. Its path says nothing about what it is: it is only where a worker that has not loaded it finds it
//! ([`find`]).
//!
//! The home object never moves or changes while its code runs, so its table is made once and [`resolve`] costs a few
//! nanoseconds for it. Other objects come and go: for them each call asks the loader whether its list has changed since
//! the table was made.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError, RwLock};

use hash::Hash;

use crate::kernel_files;

mod hash;

/// Length of a [`build_id`] in bytes: that of the SHA-1 that GNU linkers write.
pub const BUILD_ID_LEN: usize = 20;

type Fingerprint = [u8; BUILD_ID_LEN];

/// The identity of the home object in a [`CodeRef`].
const HOME: u64 = 0;

/// A code address as seen from the object that holds it: plain numbers, valid in every process of this program.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeRef {
    /// 0 for the home object; for any other a hash of its build (its build-id note, or its program headers and code
    /// where it has none). A library that was exchanged on disk has another identity, so its addresses are not found
    /// rather than wrong.
    pub object: u64,
    /// Distance in bytes from the address at which the object was loaded (`dlpi_addr`).
    pub offset: u64,
}

/// Describes a code address for another process of this program.
///
/// `None` if the address lies in no executable segment of a loaded object: data, heap, stack, or code made at run
/// time.
pub fn code_ref(address: usize) -> Option<CodeRef> {
    let find = |object: &Object| {
        object.offset_of(address).map(|offset| CodeRef {
            object: object.id(),
            offset,
        })
    };
    find(home()).or_else(|| with_others(|others| others.iter().find_map(find)))
}

/// The address of this code in the calling process; the reverse of [`code_ref`].
///
/// `None` if the object is not loaded here (or another build of it is), or if the offset lies outside its
/// executable segments. That the address is the *start* of a function cannot be seen here: whoever jumps to it
/// must know that the reference was made from one, by the same build. The address of a library stays valid until
/// that library is unloaded.
pub fn resolve(code: CodeRef) -> Option<usize> {
    if code.object == HOME {
        return home().address_of(code.offset);
    }
    with_others(|others| {
        let object = others.iter().find(|object| object.id() == code.object)?;
        object.address_of(code.offset)
    })
}

/// Says where the file of an object lies that this process has not loaded.
pub type Locator = Box<dyn Fn(u64) -> Result<PathBuf, String> + Send + Sync>;

static LOCATOR: OnceLock<Locator> = OnceLock::new();

/// Whom [`find`] asks for objects that are not loaded here. The first call counts.
///
/// # Safety
/// [`find`] loads the file that the locator names, and so runs its constructors, before it can compare its build. So the
/// locator names only files that another process of this program has loaded as this object.
pub unsafe fn set_locator(locator: Locator) {
    let _ = LOCATOR.set(locator);
}

/// As [`resolve`]; an object that is not loaded is opened if the process has somebody to ask where it lies.
///
/// # Errors
/// A sentence that says why the code cannot be had.
pub fn find(code: CodeRef) -> Result<usize, String> {
    if let Some(address) = resolve(code) {
        return Ok(address);
    }
    if code.object == HOME {
        return Err("it lies outside of the code of this program".to_owned());
    }
    let locate = LOCATOR
        .get()
        .ok_or("it is in an object that is not loaded here")?;
    open(code.object, &locate(code.object)?)?;
    resolve(code).ok_or_else(|| "it lies outside of the code of its library".to_owned())
}

/// Loads a shared library for good, and makes sure that it is this build.
fn open(object: u64, path: &Path) -> Result<(), String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: the string is closed by a zero. The constructors of the library run, as in the process that refers to it:
    // whoever set the locator promised that such a process has loaded the file.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: no arguments; it reads and clears this thread's last error.
        let text = unsafe { libc::dlerror() };
        let why = match text.is_null() {
            true => "the loader does not say why".into(),
            // SAFETY: a string of the loader's, closed by a zero, that lives until its next call in this thread.
            false => unsafe { CStr::from_ptr(text) }.to_string_lossy(),
        };
        return Err(format!("its library cannot be loaded: {why}"));
    }
    if with_others(|others| others.iter().any(|other| other.id() == object).then_some(())).is_some() {
        return Ok(());
    }
    // SAFETY: the handle is from the call above, and nothing of the library was taken.
    unsafe { libc::dlclose(handle) };
    Err(format!(
        "its library, {}, was replaced by another build since it was loaded",
        path.display()
    ))
}

/// Where the file of a loaded object lies, for another process.
///
/// # Errors
/// A sentence that says why it cannot be found.
pub fn path_of(object: u64) -> Result<PathBuf, String> {
    let is_main = |other: &Object| other.is_main;
    let found = with_others(|others| {
        let found = others.iter().find(|other| other.id() == object)?;
        Some((is_main(found), mapping_of(found.start())))
    });
    match found {
        None => Err("it is in a library that was unloaded, or that is not the one it was".to_owned()),
        Some((true, _)) => Err(
            "it is in the program itself, and the workers are of another program that has loaded the same library"
                .to_owned(),
        ),
        Some((_, None)) => Err("the kernel does not say where its library lies".to_owned()),
        Some((_, Some(mapping))) => mapping.path_for_others(),
    }
}

/// A fingerprint of the home object: the same in every process that has loaded this build, another for another build.
///
/// It is the linker's build id (the `NT_GNU_BUILD_ID` note: cut to 20 bytes, or filled up with zeros) where the
/// linker wrote one. Many do not unless asked (`-Wl,--build-id`), and then it is a hash of the program headers and all
/// its machine code, read once from the file that is running, even if another has taken its name. The file is read
/// rather than memory because a debugger's breakpoints change the code in memory. The hash guards against mistakes, not
/// against forgery.
pub fn build_id() -> [u8; BUILD_ID_LEN] {
    home().fingerprint()
}

/// An address inside the main program, whatever else is loaded.
pub(crate) fn main_program_address() -> Option<usize> {
    let mut main = None;
    // The loader lists the executable first.
    for_each_object(|info| {
        main = Some(Object::new(true, &Image::of(info)).start());
        ControlFlow::Break(())
    });
    main
}

/// Where the code of one loaded object lies.
#[derive(Debug)]
struct Object {
    base: usize,
    /// Executable segments, relative to `base`.
    code: Vec<Range<usize>>,
    /// Whether it is the executable.
    is_main: bool,
    /// Whether it is the home object.
    is_home: bool,
    build: Build,
}

/// What tells an object from others.
#[derive(Debug)]
enum Build {
    Note(Fingerprint),
    /// None was written: a hash of its segments, made when it is asked for.
    Content(Vec<Segment>, OnceLock<Fingerprint>),
}

impl Object {
    fn new(is_main: bool, image: &Image<'_>) -> Self {
        let segments = || image.segments();
        let code = segments()
            .filter(|segment| segment.is_executable())
            .map(|segment| segment.range());
        Self {
            base: image.base,
            code: code.collect(),
            is_main,
            is_home: false,
            build: match image.build_id_note() {
                Some(note) => Build::Note(fixed_length(note)),
                None => Build::Content(segments().collect(), OnceLock::new()),
            },
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        match &self.build {
            Build::Note(note) => *note,
            Build::Content(segments, known) => *known.get_or_init(|| hash_of_content(self.base, segments)),
        }
    }

    fn id(&self) -> u64 {
        if self.is_home {
            return HOME;
        }
        let mut hash = Hash::new();
        hash.bytes(&self.fingerprint());
        let [id, ..] = hash.finish();
        if id == HOME { !id } else { id }
    }

    /// An address in its code.
    fn start(&self) -> usize {
        self.base + self.code.first().map_or(0, |range| range.start)
    }

    fn holds(&self, offset: usize) -> bool {
        self.code.iter().any(|range| range.contains(&offset))
    }

    fn offset_of(&self, address: usize) -> Option<u64> {
        let offset = address.wrapping_sub(self.base);
        self.holds(offset).then_some(offset as u64)
    }

    fn address_of(&self, offset: u64) -> Option<usize> {
        let offset = usize::try_from(offset).ok()?;
        self.holds(offset).then(|| self.base.wrapping_add(offset))
    }
}

/// An address in the home object.
fn an_address_at_home() -> usize {
    let here: fn() -> Fingerprint = build_id;
    here as usize
}

fn home() -> &'static Object {
    static HOME_OBJECT: OnceLock<Object> = OnceLock::new();
    HOME_OBJECT.get_or_init(|| {
        let here = an_address_at_home();
        let mut home = None;
        let mut is_main = true;
        for_each_object(|info| {
            let mut object = Object::new(std::mem::take(&mut is_main), &Image::of(info));
            if object.offset_of(here).is_none() {
                return ControlFlow::Continue(());
            }
            object.is_home = true;
            home = Some(object);
            ControlFlow::Break(())
        });
        home.expect("the loader lists the object that this code is in")
    })
}

/// The objects besides the home object that were loaded when the loader's counters stood at `generation`.
#[derive(Debug)]
struct Others {
    generation: (u64, u64),
    objects: Vec<Object>,
}

/// Shows the other objects that are loaded now to `look`, making a new table only if the old one has gone stale.
fn with_others<R>(look: impl Fn(&[Object]) -> Option<R>) -> Option<R> {
    static OTHERS: RwLock<Option<Others>> = RwLock::new(None);
    let now = loader_generation();
    // A table is only ever replaced whole, so a panic elsewhere cannot have left half of one.
    if let Some(table) = &*OTHERS.read().unwrap_or_else(PoisonError::into_inner)
        && table.generation == now
    {
        return look(&table.objects);
    }
    let table = load_others();
    let found = look(&table.objects);
    *OTHERS.write().unwrap_or_else(PoisonError::into_inner) = Some(table);
    found
}

fn load_others() -> Others {
    let mut table = Others {
        generation: (0, 0),
        objects: Vec::new(),
    };
    let home = home().base;
    // The loader lists the executable first.
    let mut is_main = true;
    for_each_object(|info| {
        // One walk holds the loader's lock throughout, so the counters belong to exactly this list.
        table.generation = (info.dlpi_adds, info.dlpi_subs);
        let image = Image::of(info);
        let is_main = std::mem::take(&mut is_main);
        if image.base != home {
            table.objects.push(Object::new(is_main, &image));
        }
        ControlFlow::Continue(())
    });
    table
}

/// How many objects the loader has added and removed so far: equal numbers mean an unchanged list.
fn loader_generation() -> (u64, u64) {
    let mut generation = (0, 0);
    for_each_object(|info| {
        generation = (info.dlpi_adds, info.dlpi_subs);
        ControlFlow::Break(())
    });
    generation
}

/// Walks the loaded objects of this process, the main executable first.
///
/// `visit` runs under the loader's lock and inside a C function: it must not load libraries and must not panic (a
/// panic there ends the process).
pub(crate) fn for_each_object<F: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>>(mut visit: F) {
    unsafe extern "C" fn call<F: FnMut(&libc::dl_phdr_info) -> ControlFlow<()>>(
        info: *mut libc::dl_phdr_info,
        size: libc::size_t,
        visit: *mut libc::c_void,
    ) -> libc::c_int {
        if size < size_of::<libc::dl_phdr_info>() {
            return 1; // a loader older than the counters: nothing here is known to be there
        }
        // SAFETY: `visit` is the pointer to the closure given to `dl_iterate_phdr` below, which is borrowed there
        // exclusively until that call returns; `info` is the loader's record, at least as long as our type (checked).
        let (info, visit) = unsafe { (&*info, &mut *visit.cast::<F>()) };
        visit(info).is_break().into()
    }
    // SAFETY: `call::<F>` has the signature that the loader expects, and `visit` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(call::<F>), (&raw mut visit).cast()) };
}

/// One entry of an object's program header table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) kind: u32,
    flags: u32,
    file_offset: u64,
    address: u64,
    file_len: u64,
    memory_len: u64,
    align: u64,
}

impl Segment {
    fn is_executable(&self) -> bool {
        self.kind == libc::PT_LOAD && self.flags & libc::PF_X != 0
    }

    /// Where it lies in memory, relative to the load address.
    pub(crate) fn range(&self) -> Range<usize> {
        let start = self.address as usize;
        start..start.saturating_add(self.memory_len as usize)
    }
}

/// A loaded object, while the loader shows it to us.
pub(crate) struct Image<'a> {
    pub(crate) base: usize,
    headers: &'a [libc::Elf64_Phdr],
}

impl<'a> Image<'a> {
    pub(crate) fn of(info: &'a libc::dl_phdr_info) -> Self {
        let headers = if info.dlpi_phdr.is_null() {
            &[]
        } else {
            // SAFETY: the loader promises `dlpi_phnum` headers at `dlpi_phdr`, which stay mapped while it shows us
            // this object, and `info` is borrowed from that walk.
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) }
        };
        Self {
            base: info.dlpi_addr as usize,
            headers,
        }
    }

    pub(crate) fn segments(&self) -> impl Iterator<Item = Segment> {
        self.headers.iter().map(|header| Segment {
            kind: header.p_type,
            flags: header.p_flags,
            file_offset: header.p_offset,
            address: header.p_vaddr,
            file_len: header.p_filesz,
            memory_len: header.p_memsz,
            align: header.p_align,
        })
    }

    /// The linker's build id, if it wrote one.
    fn build_id_note(&self) -> Option<&'a [u8]> {
        self.segments()
            .filter(|segment| segment.kind == libc::PT_NOTE)
            .find_map(|segment| find_build_id(self.bytes(&segment)?, segment.align))
    }

    /// The bytes of a segment in memory, if they lie in a part of the object that is loaded to be read only.
    fn bytes(&self, segment: &Segment) -> Option<&'a [u8]> {
        let wanted = segment.range();
        let is_loaded = self.segments().any(|load| {
            let range = load.range();
            load.kind == libc::PT_LOAD
                && load.flags & (libc::PF_R | libc::PF_W) == libc::PF_R
                && range.start <= wanted.start
                && wanted.end <= range.end
        });
        // SAFETY: the range lies within one segment (checked) that the loader has mapped readable and not writable
        // at `base`, and that stays mapped and unchanged while it shows us this object, hence for `'a`.
        is_loaded.then(|| unsafe {
            let start = std::ptr::with_exposed_provenance(self.base.wrapping_add(wanted.start));
            std::slice::from_raw_parts(start, wanted.len())
        })
    }
}

/// Finds the `NT_GNU_BUILD_ID` descriptor in the bytes of a note segment (elf(5), "Notes").
fn find_build_id(mut notes: &[u8], align: u64) -> Option<&[u8]> {
    const HEADER: usize = 12;
    const NT_GNU_BUILD_ID: u32 = 3;
    // Notes are padded to 4 bytes, except in the 8-byte aligned segments of newer tool chains.
    let align = if align == 8 { 8 } else { 4 };
    let word = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    while notes.len() >= HEADER {
        let name_len = word(&notes[..4])? as usize;
        let id_len = word(&notes[4..8])? as usize;
        let kind = word(&notes[8..HEADER])?;
        let name_end = HEADER.checked_add(name_len)?;
        let start = name_end.checked_next_multiple_of(align)?;
        let end = start.checked_add(id_len)?;
        let (name, descriptor) = (notes.get(HEADER..name_end)?, notes.get(start..end)?);
        if kind == NT_GNU_BUILD_ID && name == b"GNU\0" && !descriptor.is_empty() {
            return Some(descriptor);
        }
        notes = notes.get(end.checked_next_multiple_of(align)?..)?;
    }
    None
}

/// Cuts to, or fills up with zeros to, the length of a build id.
fn fixed_length(id: &[u8]) -> [u8; BUILD_ID_LEN] {
    let mut fixed = [0; BUILD_ID_LEN];
    for (to, from) in fixed.iter_mut().zip(id) {
        *to = *from;
    }
    fixed
}

/// A stretch of this process's memory that is a file's.
#[derive(Debug)]
struct Mapping {
    range: String,
    inode: u64,
    path: PathBuf,
}

impl Mapping {
    /// Whether the file is still there under its name.
    fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }

    /// The file itself, whatever became of its name. Open to few; see proc(5).
    fn without_name(&self, process: &str) -> PathBuf {
        format!("/proc/{process}/map_files/{}", self.range).into()
    }

    fn path_for_others(&self) -> Result<PathBuf, String> {
        if self.is_there() {
            return Ok(self.path.clone());
        }
        let nameless = self.without_name(&std::process::id().to_string());
        match File::open(&nameless) {
            Ok(_) => Ok(nameless),
            Err(_) => Err(format!(
                "the file of its library, {}, was deleted or replaced since it was loaded",
                self.path.display()
            )),
        }
    }

    fn open(&self) -> Option<File> {
        let is_it = |file: &File| file.metadata().is_ok_and(|file| file.ino() == self.inode);
        let executable = PathBuf::from("/proc/self/exe");
        let paths = [executable, self.path.clone(), self.without_name("self")];
        paths.iter().filter_map(|path| File::open(path).ok()).find(is_it)
    }
}

/// The mapping that an address lies in (proc(5), "maps").
fn mapping_of(address: usize) -> Option<Mapping> {
    let maps = kernel_files::read("/proc/self/maps").ok()?;
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut word = || std::str::from_utf8(fields.next()?).ok();
        let (range, _access, _offset, _device, inode) = (word()?, word()?, word()?, word()?, word()?);
        let (start, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        if !(number(start)?..number(end)?).contains(&address) {
            return None;
        }
        let path = fields.next()?.trim_ascii_start();
        Some(Mapping {
            range: range.to_owned(),
            inode: inode.parse().ok()?,
            path: OsStr::from_bytes(path).into(),
        })
    })
}

/// The stand-in for a missing build id; see [`build_id`]. Parts that cannot be read are left out: a process that
/// can read them then gets another value, and the handshake fails with an error instead of going on in doubt.
fn hash_of_content(base: usize, segments: &[Segment]) -> Fingerprint {
    let mut hash = Hash::new();
    for segment in segments {
        hash.word(u64::from(segment.kind) << 32 | u64::from(segment.flags));
        for field in [
            segment.file_offset,
            segment.address,
            segment.file_len,
            segment.memory_len,
        ] {
            hash.word(field);
        }
    }
    for code in segments.iter().filter(|segment| segment.is_executable()) {
        let mapping = mapping_of(base.wrapping_add(code.range().start));
        if let Some(file) = mapping.and_then(|mapping| mapping.open()) {
            hash_code(&mut hash, &file, code);
        }
    }
    let words = hash.finish();
    fixed_length(words.map(u64::to_le_bytes).as_flattened())
}

fn hash_code(hash: &mut Hash, file: &File, code: &Segment) {
    let mut buffer = vec![0; 1 << 18];
    let mut left = code.file_len;
    while left > 0 {
        let wanted = left.min(buffer.len() as u64) as usize;
        let position = code.file_offset.wrapping_add(code.file_len - left);
        if file.read_exact_at(&mut buffer[..wanted], position).is_err() {
            return;
        }
        hash.bytes(&buffer[..wanted]);
        left -= wanted as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn double(number: u64) -> u64 {
        number * 2
    }

    fn address_of_double() -> usize {
        let function: fn(u64) -> u64 = double;
        function as usize
    }

    fn address_in_libc() -> usize {
        libc::getpid as *const () as usize
    }

    #[test]
    fn a_function_of_this_program_comes_back() {
        let code = code_ref(address_of_double()).unwrap();
        assert_eq!(code.object, HOME);
        assert_ne!(code.offset, 0);
        assert_eq!(resolve(code), Some(address_of_double()));
    }

    #[test]
    fn a_function_of_a_library_comes_back_while_it_is_loaded() {
        let code = code_ref(address_in_libc()).unwrap();
        // In a statically linked test program, libc is part of the main executable.
        assert_eq!(code.object == HOME, cfg!(target_feature = "crt-static"));
        assert_eq!(resolve(code), Some(address_in_libc()));
        assert_eq!(
            resolve(CodeRef {
                object: code.object ^ 1,
                ..code
            }),
            None
        );
    }

    #[test]
    fn what_is_no_code_has_no_reference() {
        static DATA: u64 = 7;
        let (stack, heap) = (0_u64, Box::new(0_u64));
        for address in [&raw const DATA, &raw const stack, &raw const *heap].map(|pointer| pointer as usize) {
            assert_eq!(code_ref(address), None, "{address:#x}");
        }
        assert_eq!(code_ref(0), None);
        assert_eq!(code_ref(usize::MAX), None);
    }

    #[test]
    fn offsets_outside_the_code_are_refused() {
        for inside in [address_of_double(), address_in_libc()] {
            let code = code_ref(inside).unwrap();
            let at = |offset: u64| resolve(CodeRef { offset, ..code });
            assert_eq!(at(0), None, "the ELF header is no code");
            assert_eq!(at(u64::MAX), None);
            assert_eq!(at(1 << 47), None);
            let end = (code.offset..)
                .step_by(16)
                .find(|&offset| at(offset).is_none())
                .unwrap();
            assert!(
                at(end - 16).is_some() && end - code.offset < 1 << 32,
                "the code ends at {end:#x}"
            );
        }
    }

    #[test]
    fn both_edges_of_a_segment_are_exact() {
        let object = Object {
            base: 0x7000_0000,
            code: vec![0x1000..0x1800, 0x3000..0x3001],
            is_main: false,
            is_home: false,
            build: Build::Note([0; BUILD_ID_LEN]),
        };
        for (offset, holds) in [
            (0xfff, false),
            (0x1000, true),
            (0x17ff, true),
            (0x1800, false),
            (0x3000, true),
            (0x3001, false),
        ] {
            assert_eq!(object.address_of(offset).is_some(), holds, "{offset:#x}");
            assert_eq!(
                object.offset_of(0x7000_0000 + offset as usize).is_some(),
                holds,
                "{offset:#x}"
            );
        }
    }

    /// Looks for a library that this program has no other use for, so the loader's counters surely change.
    #[test]
    fn a_library_loaded_later_is_found_and_an_unloaded_one_is_not() {
        // Makes the table, so that the search below has an old one to replace.
        assert!(code_ref(address_in_libc()).is_some());
        // SAFETY: a plain dlopen of a system library with a valid name; its constructors are the C library's.
        let handle = unsafe { libc::dlopen(c"libresolv.so.2".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            eprintln!("skipped: this system has no libresolv.so.2 to load");
            return;
        }
        // SAFETY: the handle is from dlopen above, the name is a valid string.
        let symbol = unsafe { libc::dlsym(handle, c"ns_get16".as_ptr()) } as usize;
        let loaded = code_ref(symbol);
        let back = loaded.and_then(resolve);
        // SAFETY: the handle is closed once and nothing of the library is called.
        unsafe { libc::dlclose(handle) };
        assert_ne!(symbol, 0);
        assert_eq!(back, Some(symbol));
        let mut still_listed = false;
        for_each_object(|info| {
            let here = Image::of(info);
            still_listed |= Object::new(false, &here).offset_of(symbol).is_some();
            ControlFlow::Continue(())
        });
        assert_eq!(loaded.and_then(resolve).is_some(), still_listed);
    }

    #[test]
    fn libraries_have_distinct_identities() {
        let mut ids: Vec<u64> = load_others().objects.iter().map(Object::id).collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(!ids.contains(&HOME));
    }

    #[test]
    fn the_build_id_is_the_note_or_the_hash_of_the_file() {
        assert_eq!(build_id(), build_id());
        assert_ne!(build_id(), [0; BUILD_ID_LEN]);
        let (mut note, mut hash) = (None, [0; BUILD_ID_LEN]);
        for_each_object(|info| {
            let image = Image::of(info);
            note = image.build_id_note().map(fixed_length);
            hash = hash_of_content(image.base, &image.segments().collect::<Vec<_>>());
            ControlFlow::Break(())
        });
        assert_ne!(hash, [0; BUILD_ID_LEN]);
        assert_eq!(build_id(), note.unwrap_or(hash));
    }

    #[test]
    fn another_process_is_told_where_a_library_lies() {
        let code = code_ref(address_in_libc()).unwrap();
        if code.object == HOME {
            return;
        }
        let path = path_of(code.object).unwrap();
        assert!(path.is_absolute() && path.exists(), "{path:?}");
        assert_eq!(open(code.object, &path), Ok(()));
        let other = open(code.object ^ 1, &path).unwrap_err();
        assert!(
            other.ends_with("was replaced by another build since it was loaded"),
            "{other}"
        );
        let nowhere = open(code.object, Path::new("/no/such/library.so")).unwrap_err();
        assert!(nowhere.contains("/no/such/library.so"), "{nowhere}");
        assert!(path_of(code.object ^ 1).unwrap_err().contains("was unloaded"));
        let mut lost = mapping_of(address_in_libc()).unwrap();
        lost.inode += 1;
        lost.range = "0-1000".to_owned();
        let deleted = lost.path_for_others().unwrap_err();
        assert!(deleted.contains("was deleted or replaced"), "{deleted}");
    }

    fn note(kind: u32, name: &[u8], descriptor: &[u8], align: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, kind] {
            bytes.extend(word.to_ne_bytes());
        }
        for part in [name, descriptor] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(align), 0);
        }
        bytes
    }

    #[test]
    fn the_note_is_found_among_others() {
        for align in [4, 8] {
            let mut notes = note(1, b"GNU\0", &[9; 5], align);
            notes.extend(note(3, b"Go\0\0", &[8; 16], align));
            notes.extend(note(3, b"GNU\0", &[7; 20], align));
            assert_eq!(
                find_build_id(&notes, align as u64),
                Some(&[7; 20][..]),
                "align {align}"
            );
        }
    }

    #[test]
    fn damaged_notes_are_no_note() {
        let good = note(3, b"GNU\0", &[7; 20], 4);
        for len in 0..good.len() {
            assert_eq!(find_build_id(&good[..len], 4), None, "cut to {len}");
        }
        for word in 0..2 {
            let mut bad = good.clone();
            bad[word * 4..][..4].fill(0xff);
            assert_eq!(find_build_id(&bad, 4), None, "length {word}");
        }
    }

    #[test]
    fn ids_of_other_lengths_are_cut_or_filled() {
        let mut short = [0; BUILD_ID_LEN];
        short[..8].fill(6);
        assert_eq!(fixed_length(&[6; 8]), short);
        assert_eq!(fixed_length(&[6; 32]), [6; BUILD_ID_LEN]);
    }
}
