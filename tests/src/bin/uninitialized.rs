//! A program that forgot `swathe::init()`.

fn main() {
    println!("{}", swathe::Pool::new().unwrap_err());
}
