//! A program that forgot `swathe::init()`, or calls it too late: `uninitialized late`.

fn main() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    if std::env::args().nth(1).is_some() {
        let early = std::thread::Builder::new().name("early-bird".to_owned());
        let _thread = early.spawn(move || gone.recv());
        swathe::init();
    }
    println!("{}", swathe::Pool::new().unwrap_err());
    drop(go);
}
