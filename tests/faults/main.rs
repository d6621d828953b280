//! Every fault at every stage: each cell of the table in `docs/reliability.md` is injected and must come out as it says
//! there. The tests read the table itself, so the two cannot disagree.

swathe::init_before_main!();

mod cell;
mod errors;
mod everywhere;
mod hung;
mod rebuilt;
mod shape;
mod stages;
mod table;
