//! Scenarios, where they run, and how what they recorded is compared.
//!
//! Where a scenario runs is said once, by the citations above it (`spec/README.md`): at all places that
//! one of them names, or, unnamed, at all that know the protocol of its ids.
//!
//! Kernel counterpart: none.

use userfault_engine::Protocol;

use crate::place::{Kind, Place};
use crate::places::kernel::{Flavour, Kernel};
use crate::places::process::Process;
use crate::places::simulator::Simulated;
use crate::record::Record;
use crate::world::World;

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The module it is in.
    pub module: &'static str,
    /// Its name: a sentence.
    pub name: &'static str,
    /// Its steps.
    pub run: fn(&mut World<'_>),
    /// The text of its module.
    pub source: &'static str,
}

impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}", self.module, self.name)
    }
}

/// In pieces, so that this is not taken for one.
const CITATION: &str = concat!("// ", "spec");

/// A record, or why there is none.
type Run = Result<Record, String>;

impl Scenario {
    /// The places that the comments above it name.
    ///
    /// # Panics
    ///
    /// If there are no such comments.
    #[must_use]
    pub fn places(&self) -> Vec<Kind> {
        let head = format!("fn {}(", self.name);
        let lines: Vec<&str> = self.source.lines().collect();
        let at = lines.iter().position(|line| line.contains(&head)).unwrap_or(0);
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("//"));
        let mut places = Vec::new();
        for (stated, ids) in above.filter_map(|line| line.strip_prefix(CITATION)?.split_once(':')) {
            for kind in [Kind::Simulator, Kind::Process, Kind::Kernel] {
                let knows = kind != Kind::Kernel || ids.trim_start().starts_with("m/");
                if if stated.is_empty() { knows } else { stated.contains(kind.word()) } {
                    places.push(kind);
                }
            }
        }
        assert!(!places.is_empty(), "{self:?} cites no rule");
        places
    }

    /// The protocols that it runs with.
    #[must_use]
    pub fn protocols(&self) -> &'static [Protocol] {
        if self.module.starts_with("original") {
            &[Protocol::Original { fills: false }, Protocol::Original { fills: true }]
        } else {
            &[Protocol::Modern]
        }
    }

    /// Runs it at one place.
    pub fn run_at(&self, place: &mut dyn Place, protocol: Protocol) -> Record {
        let mut world = World::new(place, protocol);
        (self.run)(&mut world);
        world.finish()
    }

    /// Runs it in the simulator.
    #[must_use]
    pub fn simulate(&self, protocol: Protocol, flags: u32) -> Record {
        self.run_at(&mut Simulated::new(protocol, flags), protocol)
    }

    /// Runs it in the process provider.
    #[must_use]
    pub fn host(&self, protocol: Protocol) -> Record {
        self.run_at(&mut Process::new(protocol), protocol)
    }

    fn on_kernel(&self, flavour: Flavour) -> Run {
        let mut kernel = Kernel::new(flavour)?;
        Ok(self.run_at(&mut kernel, Protocol::Modern))
    }

    /// Runs it wherever it runs, and compares.
    ///
    /// # Panics
    ///
    /// With a readable text, if a place departs from the specification or from another place.
    pub fn check(&self) {
        let places = self.places();
        for protocol in self.protocols() {
            let simulated = places.contains(&Kind::Simulator).then(|| self.simulate(*protocol, 0));
            if let Some(record) = &simulated {
                self.judge("simulator", record);
            }
            let hosted = places.contains(&Kind::Process).then(|| self.host(*protocol));
            if let Some(record) = &hosted {
                self.judge("process", record);
                if let Some(simulated) = &simulated {
                    self.compare(("simulator", simulated), ("process", record));
                }
            }
            if places.contains(&Kind::Kernel) {
                self.check_kernel(simulated.as_ref(), hosted.as_ref());
            }
        }
    }

    fn check_kernel(&self, simulated: Option<&Record>, hosted: Option<&Record>) {
        for flavour in [Flavour::Call, Flavour::Device, Flavour::UserModeOnly] {
            let name = format!("kernel, {flavour:?}");
            match self.on_kernel(flavour) {
                Ok(record) => {
                    self.judge(&name, &record);
                    if let Some(simulated) = simulated {
                        self.compare(("simulator", simulated), (&name, &record));
                    }
                    // The process provider sees user-mode accesses only.
                    if let Some(hosted) = hosted.filter(|_| flavour == Flavour::UserModeOnly) {
                        self.compare(("process", hosted), (&name, &record));
                    }
                }
                Err(why) => skipped(&why),
            }
        }
    }

    fn judge(&self, name: &str, record: &Record) {
        if std::env::var_os("USERFAULT_RECORDS").is_some() {
            println!("{self:?}, {name}:\n{record}");
        }
        // To see what the comparison alone catches.
        if std::env::var_os("USERFAULT_COMPARE_ONLY").is_some() {
            return;
        }
        let failures = record.failures.join("\n  ");
        assert!(record.failures.is_empty(), "{self:?}, {name}:\n  {failures}\nAll steps:\n{record}");
    }

    fn compare(&self, one: (&str, &Record), two: (&str, &Record)) {
        if let Some(text) = one.1.difference(two.1, (one.0, two.0)) {
            panic!("{self:?}: {} and {} differ, {text}", one.0, two.0);
        }
    }
}

/// Says that something cannot run here; fails where it must.
///
/// # Panics
///
/// If `USERFAULT_REQUIRE_KERNEL=1`.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("USERFAULT_REQUIRE_KERNEL").is_none_or(|value| value != "1"), "required: {why}");
    println!("skipped: because {why}");
}
