//! Who waits for something to happen, and who makes it happen, killed at every instruction. Afterwards the one who was
//! waiting besides must hear, and the words must serve another pair.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{
    Pick,
    course::{Course, End},
    tally::Tally,
};
use crate::{
    roles::{Act, Ground, Role, WaitKind},
    tracee::{Tracee, Went},
    verdict::Verdict,
    watch::Watch,
};

/// One kind of death.
#[derive(Clone, Copy, Debug)]
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// What is used.
    pub kind: WaitKind,
    /// What the mortal does with it.
    pub mortal: Act,
}

/// The engine's doorbells.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "doorbell/park-sleeper",
        kind: WaitKind::Park,
        mortal: Act::Wait,
    },
    Scene {
        name: "doorbell/park-ringer",
        kind: WaitKind::Park,
        mortal: Act::Wake,
    },
    Scene {
        name: "doorbell/bell-waiter",
        kind: WaitKind::Bell,
        mortal: Act::Wait,
    },
    Scene {
        name: "doorbell/bell-ringer",
        kind: WaitKind::Bell,
        mortal: Act::Wake,
    },
];

/// Runs a scene for the picked instructions, until `enough` survivors wait for ever: who has not heard after `patience`
/// never will.
///
/// # Errors
/// If processes cannot be started or stepped.
pub fn run(scene: &Scene, pick: Pick, patience: Duration, enough: u64) -> io::Result<Tally> {
    let start = Instant::now();
    let watch = Watch::over(scene.name);
    let way = Way::record(scene)?;
    let mut tally = Tally::new(scene.name, way.instructions());
    for index in pick.of(way.deaths()) {
        watch.still_alive();
        let ground = Ground::new()?;
        let (went, survivor) = way.kill_at(scene, &ground, index)?;
        ground.recover(scene.kind);
        let deed = match survive(scene.kind, &ground, survivor, patience)? {
            None => Some((went, Verdict::default())),
            Some(complaint) => {
                tally.complain(index, way.offset(index), complaint);
                None
            }
        };
        tally.count(deed);
        if tally.hung >= enough {
            break;
        }
    }
    tally.took = start.elapsed();
    Ok(tally)
}

/// The mortal's way: to where it sleeps, and, woken, to its end. One that never sleeps has the first part only.
struct Way {
    to_sleep: Course,
    woken: Option<Course>,
}

/// Starts the mortal and another who waits, and stops the mortal at the beginning of its way.
fn begin(scene: &Scene, ground: &Ground) -> io::Result<(Role, Tracee, Option<Role>)> {
    let mut survivor = match scene.kind {
        WaitKind::RawMutex => None,
        // One park word has one sleeper.
        WaitKind::Park if scene.mortal == Act::Wait => None,
        _ => Some(ground.spawn(scene.kind, Act::Wait, false)?),
    };
    if let Some(survivor) = &mut survivor {
        survivor.await_sleep()?;
    }
    let mut mortal = ground.spawn(scene.kind, scene.mortal, true)?;
    mortal.await_sleep()?;
    let mut tracee = Tracee::attach(mortal.pid())?;
    ground.start();
    match tracee.run_to_marker()? {
        Went::There => Ok((mortal, tracee, survivor)),
        went => Err(io::Error::other(format!("a role did not begin: {went:?}"))),
    }
}

/// Makes happen what the mortal waits for.
fn wake(kind: WaitKind, ground: &Ground) -> io::Result<()> {
    match ground
        .spawn(kind, Act::Wake, false)?
        .ends(Duration::from_secs(20))?
    {
        true => Ok(()),
        false => Err(io::Error::other(
            "a waker does not come to its end though nobody died",
        )),
    }
}

impl Way {
    fn record(scene: &Scene) -> io::Result<Self> {
        let ground = Ground::new()?;
        let (_mortal, mut tracee, _survivor) = begin(scene, &ground)?;
        let to_sleep = Course::record(&mut tracee, End::SleepOrMarker)?;
        let woken = if to_sleep.ends_asleep() {
            wake(scene.kind, &ground)?;
            Some(Course::record(&mut tracee, End::Marker)?)
        } else {
            None
        };
        drop(tracee);
        Ok(Self { to_sleep, woken })
    }

    fn instructions(&self) -> usize {
        self.to_sleep.len() + self.woken.as_ref().map_or(0, Course::len)
    }

    fn deaths(&self) -> usize {
        self.to_sleep.deaths() + self.woken.as_ref().map_or(0, Course::deaths)
    }

    fn offset(&self, index: usize) -> u64 {
        match index.checked_sub(self.to_sleep.deaths()).zip(self.woken.as_ref()) {
            Some((index, woken)) => woken.offset(index),
            None => self.to_sleep.offset(index),
        }
    }

    /// Kills the mortal, and gives back who waits besides.
    fn kill_at(&self, scene: &Scene, ground: &Ground, index: usize) -> io::Result<(Went, Option<Role>)> {
        let (_mortal, mut tracee, survivor) = begin(scene, ground)?;
        let went = match index.checked_sub(self.to_sleep.deaths()).zip(self.woken.as_ref()) {
            None => self.to_sleep.walk(&mut tracee, index)?,
            Some((index, woken)) => {
                let went = self.to_sleep.walk(&mut tracee, self.to_sleep.len() - 1)?;
                wake(scene.kind, ground)?;
                match woken.walk(&mut tracee, index)? {
                    Went::There => went,
                    elsewhere => elsewhere,
                }
            }
        };
        if went != Went::Ended {
            tracee.kill()?;
        }
        Ok((went, survivor))
    }
}

/// Whoever waited must hear, and another pair must find the words in order. Gives what does not work.
fn survive(
    kind: WaitKind,
    ground: &Ground,
    survivor: Option<Role>,
    patience: Duration,
) -> io::Result<Option<&'static str>> {
    let mut waiting = survivor;
    for _ in 0..2 {
        let mut waiter = match waiting.take() {
            Some(waiter) => waiter,
            None => {
                if !ground.spawn(kind, Act::Reset, false)?.ends(patience)? {
                    return Ok(Some("who clears it waits for ever"));
                }
                ground.spawn(kind, Act::Wait, false)?
            }
        };
        // A mutex is free, or is never to be had.
        if kind != WaitKind::RawMutex {
            waiter.await_sleep()?;
            if !ground.has_happened(kind) && !ground.spawn(kind, Act::Wake, false)?.ends(patience)? {
                return Ok(Some("who makes it happen waits for ever"));
            }
        }
        if !waiter.ends(patience)? {
            return Ok(Some("who waits for it waits for ever"));
        }
    }
    Ok(None)
}
