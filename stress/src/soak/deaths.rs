//! Who died, and of what: counted from what the engine tells `tracing`.

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// What the engine told.
#[derive(Clone, Debug, Default)]
pub(super) struct Obituary(Arc<Mutex<Told>>);

#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Deaths by cause, and by what the dead was doing.
    pub(super) deaths: BTreeMap<(String, String), u64>,
    /// Workers that the engine itself killed.
    pub(super) executed: u64,
    /// Complaints of the engine.
    pub(super) errors: Vec<String>,
}

impl Told {
    /// Deaths by a cause that starts so, in a phase of `phases`; in any, if that is empty.
    pub(super) fn of(&self, cause: &str, phases: &[&str]) -> u64 {
        let counted =
            |by: &str, phase: &str| by.starts_with(cause) && (phases.is_empty() || phases.contains(&phase));
        let deaths = self.deaths.iter().filter(|((by, phase), _)| counted(by, phase));
        deaths.map(|(_, count)| count).sum()
    }
}

impl Obituary {
    /// Listens from now on. `None` if somebody else does already.
    pub(super) fn listen() -> Option<Self> {
        let obituary = Self::default();
        tracing::subscriber::set_global_default(Listener(obituary.clone())).ok()?;
        Some(obituary)
    }

    pub(super) fn told(&self) -> Told {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Listener(Obituary);

/// The fields of an event, as texts.
#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.0.insert(field.name(), text);
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("swathe") && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let field = |name| fields.0.get(name).cloned().unwrap_or_default();
        let mut told = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match field("message").as_str() {
            "worker gone" => {
                *told.deaths.entry((field("cause"), field("phase"))).or_insert(0) += 1;
            }
            "killing a worker" => told.executed += 1,
            message if *event.metadata().level() <= Level::WARN => {
                told.errors.push(format!("{message} {:?}", fields.0));
            }
            _ => {}
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
