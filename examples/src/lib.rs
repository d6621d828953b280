//! The package of Swathe's example programs. They are its example targets; here is nothing.
