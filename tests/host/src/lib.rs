//! Swathe in a shared library that programs load which are not Rust's: what their C code sees of it, and what is to hold there.
#![expect(
    unsafe_code,
    reason = "functions for C, and functions of libraries opened by hand"
)]

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use swathe::{Builder, Code, Pool};
use swathe_runtime::{
    Call, Chunking, End, Engine, EngineConfig, Job, JobTraits, Outcome, Retries, Setup, TaskRef, Trampoline,
};
use swathe_tests::{Process, runs, until, watched};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A function as C knows it.
type Kernel = extern "C" fn(f64) -> f64;

/// To be called first in `main`. In the process that starts workers it does not return.
#[unsafe(no_mangle)]
pub extern "C" fn host_init() {
    swathe::init();
}

/// Prints the build id of this library.
#[unsafe(no_mangle)]
pub extern "C" fn host_build_id() {
    let id = swathe_os::image::build_id();
    println!("{}", id.map(|byte| format!("{byte:02x}")).concat());
}

/// Tries to build a pool, and prints why it cannot.
///
/// # Safety
/// A C string or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_build(worker: *const c_char) -> c_int {
    // SAFETY: as this function's caller promises.
    match builder(&unsafe { path(worker) }).build() {
        Ok(_) => 0,
        Err(error) => {
            println!("{error}");
            1
        }
    }
}

/// Does everything. `worker` is the program that workers are started from, or null; `plugin` a library that holds
/// `double kernel(double)`, three times its argument, and `void task(void *)`; `own` a function of the program, four times
/// its argument.
///
/// # Safety
/// C strings or null, and such a function.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn host_run(worker: *const c_char, plugin: *const c_char, own: Kernel) -> c_int {
    // SAFETY: as this function's caller promises.
    let (worker, plugin) = unsafe { (path(worker), path(plugin)) };
    let Some(plugin) = plugin else { return 2 };
    match run(&worker, &plugin, own) {
        Ok(()) => 0,
        Err(error) => {
            println!("{error}");
            1
        }
    }
}

/// # Safety
/// A C string or null.
unsafe fn path(text: *const c_char) -> Option<PathBuf> {
    // SAFETY: as this function's caller promises.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
    Some(text.to_string_lossy().into_owned().into())
}

fn builder(worker: &Option<PathBuf>) -> Builder {
    let builder = Pool::builder().processes(2);
    match worker {
        Some(path) => builder.worker_executable(path),
        None => builder,
    }
}

fn run(worker: &Option<PathBuf>, plugin: &Path, own: Kernel) -> Result {
    let pool = watched(builder(worker).build());
    lives_through_deaths(&pool)?;
    let library = Library::open(plugin)?;
    calls(&pool, library.kernel()?, 3.0)?;
    kill_all(&pool);
    calls(&pool, library.kernel()?, 3.0)?;
    match (worker, calls(&pool, own as *const (), 4.0)) {
        (None, result) => result?,
        (Some(_), Err(error))
            if error
                .to_string()
                .contains("it is in the program itself, and the workers are") => {}
        (Some(_), other) => return Err(format!("a function of this program only: {other:?}").into()),
    }
    replaced(worker, plugin)?;
    drop(library);
    unloaded(worker, plugin)
}

fn lives_through_deaths(pool: &Pool) -> Result {
    let squares = || -> Result {
        let values = pool.map(|x: u64| x * x, 0..1000)?;
        assert!(values.iter().copied().eq((0..1000).map(|x| x * x)));
        Ok(())
    };
    squares()?;
    kill_all(pool);
    squares()?;
    let zygote = pool
        .workers()
        .iter()
        .find_map(|worker| Some(Process::read(worker.pid)?.parent));
    let zygote = zygote.ok_or("no worker is there")?;
    assert_eq!(
        Process::read(zygote).map(|zygote| zygote.parent),
        Some(std::process::id())
    );
    kill(zygote);
    until("the zygote is gone", || !runs(zygote));
    squares()
}

fn kill(pid: u32) {
    // SAFETY: sends a signal.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

fn kill_all(pool: &Pool) {
    until("all workers are there", || pool.workers().len() == 2);
    for worker in pool.workers() {
        kill(worker.pid);
        until("it is gone", || !runs(worker.pid));
    }
}

/// Has a function called in every worker.
fn calls(pool: &Pool, function: *const (), factor: f64) -> Result {
    fn call(code: &Code, x: f64) -> std::result::Result<f64, String> {
        // SAFETY: the parent made it from such a function.
        let kernel = unsafe { std::mem::transmute::<*const (), Kernel>(code.address()?) };
        Ok(kernel(x))
    }
    let code = Code::of(function)?;
    let input: Vec<f64> = (0..100).map(f64::from).collect();
    let values = pool.batch().with(&code)?.try_map(call, &input[..])?;
    assert!(values.iter().zip(&input).all(|(y, x)| *y == factor * x));
    Ok(())
}

/// A library that has been opened at run time.
struct Library(*mut c_void);

impl Library {
    fn open(path: &Path) -> Result<Self> {
        let name = CString::new(path.display().to_string())?;
        // SAFETY: a library of the test's own, without constructors.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(format!("{} cannot be opened", path.display()).into());
        }
        Ok(Self(handle))
    }

    fn symbol(&self, name: &CStr) -> Result<*const ()> {
        // SAFETY: the library is open.
        let symbol = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if symbol.is_null() {
            return Err(format!("no symbol {name:?}").into());
        }
        Ok(symbol.cast())
    }

    fn kernel(&self) -> Result<*const ()> {
        self.symbol(c"kernel")
    }

    fn task(&self) -> Result<Trampoline> {
        // SAFETY: it takes a pointer and does nothing.
        Ok(unsafe { std::mem::transmute::<*const (), Trampoline>(self.symbol(c"task")?) })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: opened once, closed once; nothing of it is used afterwards.
        unsafe { libc::dlclose(self.0) };
    }
}

/// Another build lies where the library was by the time that a worker wants it.
fn replaced(worker: &Option<PathBuf>, plugin: &Path) -> Result {
    let copy = plugin.with_extension("replaced");
    fs::copy(plugin, &copy)?;
    // It must not be taken for the other, which workers have loaded.
    patch(&copy, &3.0f64.to_le_bytes(), &5.0f64.to_le_bytes())?;
    let library = Library::open(&copy)?;
    let other = plugin.with_extension("other");
    fs::copy(plugin, &other)?;
    fs::rename(&other, &copy)?;
    let pool = watched(builder(worker).build());
    match calls(&pool, library.kernel()?, 5.0) {
        // Only some may open what has no name any more.
        Ok(()) => {}
        Err(error) if error.to_string().contains("was deleted or replaced") => {}
        Err(error) => return Err(error),
    }
    fs::remove_file(copy)?;
    Ok(())
}

/// Replaces some bytes of a file, and what identifies its build.
fn patch(path: &Path, from: &[u8], to: &[u8]) -> Result {
    let mut bytes = fs::read(path)?;
    let find = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let at = find(&bytes, from).ok_or("the bytes are not there")?;
    bytes[at..at + to.len()].copy_from_slice(to);
    // The note of a build id: length of the name, of the id, type 3, "GNU"; then 20 bytes.
    let head: Vec<u8> = [4u32, 20, 3]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .chain(*b"GNU\0")
        .collect();
    if let Some(at) = find(&bytes, &head) {
        bytes[at + head.len()] ^= 0xff;
    }
    fs::write(path, bytes)?;
    Ok(())
}

/// Tasks and initializers whose library is gone: the job ends, or the pool says so; other jobs do not notice.
fn unloaded(worker: &Option<PathBuf>, plugin: &Path) -> Result {
    let start = |setup| {
        Engine::start(EngineConfig {
            processes: Some(2),
            worker_executable: worker.clone(),
            setup,
            ..EngineConfig::default()
        })
    };
    let engine = start(None)?;
    let library = Library::open(plugin)?;
    let task = TaskRef::trampoline(library.task()?).ok_or("a function of a library has a place")?;
    let outcome = submit(&engine, task)?;
    assert_eq!((&outcome.end, outcome.failures.len()), (&End::Complete, 0));
    // SAFETY: it is never called.
    let setup = unsafe { std::mem::transmute::<*const (), Setup>(library.symbol(c"task")?) };
    let setup = TaskRef::setup(setup).ok_or("a function of a library has a place")?;
    drop(library);

    let engine = start(None)?;
    let nothing: Trampoline = |_: &mut Call<'_>| {};
    let nothing = TaskRef::trampoline(nothing).ok_or("a function of this library has a place")?;
    for _ in 0..3 {
        let End::CannotRun(text) = &submit(&engine, task)?.end else {
            return Err("nobody has the code of the task any more".into());
        };
        assert!(
            text.contains("its task's code cannot be had: it is in a library that was unloaded"),
            "{text}"
        );
        assert_eq!(submit(&engine, nothing)?.end, End::Complete);
    }
    let engine = start(Some((setup, Vec::new(), Box::new(()))))?;
    let End::Broken(text) = &submit(&engine, nothing)?.end else {
        return Err("nobody has the code of the initializer any more".into());
    };
    assert!(
        text.contains("its code cannot be had: it is in a library that was unloaded"),
        "{text}"
    );
    Ok(())
}

fn submit(engine: &Engine, task: TaskRef) -> Result<std::sync::Arc<Outcome>> {
    let job = Job {
        task,
        heap_hint: 0,
        positions: 100,
        chunking: Chunking::Auto,
        chunk_align: 1,
        params: Vec::new(),
        traits: JobTraits::default(),
        seed: 0,
        base: 0,
        max_deaths: 1,
        retries: Retries::default(),
        element_timeout: None,
        timeout: None,
        in_place: None,
        durable: None,
        bytes: 0,
        lends: false,
        keep: Box::new(()),
        on_done: None,
    };
    let handle = engine.submit(job)?;
    assert!(handle.wait(Some(Duration::from_secs(60))), "the job hangs");
    handle
        .outcome()
        .ok_or_else(|| "a job that is over has an outcome".into())
}
