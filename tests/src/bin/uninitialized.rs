//! A program that forgot `swathe::init()`, or calls it too late: `uninitialized late`.

use std::{sync::mpsc, thread};

fn main() {
    let ((go, gone), (here, there)) = (mpsc::channel::<()>(), mpsc::channel());
    if std::env::args().nth(1).is_some() {
        let early = thread::Builder::new().name("early-bird".to_owned());
        let started = early.spawn(move || {
            // A thread gives itself its name.
            here.send(()).expect("somebody waits for it");
            gone.recv()
        });
        started.expect("a thread can be started");
        there.recv().expect("it runs");
        swathe::init();
    }
    println!("{}", swathe::Pool::new().unwrap_err());
    drop(go);
}
