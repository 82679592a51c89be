//! What systemd is asked to do (org.freedesktop.systemd1(5)).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::bus::{Bus, BusError, PATIENCE};
use super::plan::{Property, UnitPlan};
use super::wire::{Call, Value};
use super::{Systemd, Which};
use crate::error::{Doing, Failure};
use crate::plan::Planned;

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// How long to wait for the signal that a job has ended before systemd is asked.
const SIGNAL_PATIENCE: Duration = Duration::from_secs(1);
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// systemd, on the line.
#[derive(Debug)]
pub struct Manager {
    bus: Bus,
    listening: bool,
}

/// What became of the wish for a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It is there.
    Yes,
    /// There is one of this name with so many processes, which is not ours.
    InUse(usize),
}

/// Properties as D-Bus has them.
fn pairs(properties: &[Planned<Property>]) -> Vec<Value> {
    properties.iter().map(|planned| pair(&planned.step.name, planned.step.value.clone())).collect()
}

fn pair(name: &str, value: Value) -> Value {
    Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
}

fn list(values: Vec<Value>) -> Value {
    Value::Array("(sv)".to_owned(), values)
}

/// sd_booted(3). Known before anything is made that only systemd could take away again.
fn is_booted() -> Result<(), Failure> {
    if Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let failure = Failure::because("there is no /run/systemd/system").doing(Which::System.reaching());
    Err(failure.hint(Which::System.unreachable()))
}

impl Manager {
    /// Connects to it.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(which: Which) -> Result<Self, Failure> {
        Ok(Self { bus: Bus::connect(which)?, listening: false })
    }

    /// What planning has to know about it.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn probe(which: Which) -> Result<Systemd, Failure> {
        // That of the system has the whole tree (where it is in a container, that container's), whatever its property says.
        let control_group = match which {
            Which::System => is_booted().map(|()| PathBuf::from("/"))?,
            Which::User => Self::connect(which)?.control_group()?,
        };
        Ok(Systemd { which, control_group })
    }

    fn control_group(&mut self) -> Result<PathBuf, Failure> {
        let group = self.property(PATH, MANAGER, "ControlGroup").doing(|| "ask systemd for its control group")?;
        let group = group.as_str().map(PathBuf::from);
        group.ok_or_else(|| Failure::because("systemd does not say what its control group is"))
    }

    fn call(&mut self, member: &str, body: &[Value]) -> Result<Vec<Value>, BusError> {
        self.call_on(PATH, MANAGER, member, body)
    }

    fn call_on(&mut self, path: &str, interface: &str, member: &str, body: &[Value]) -> Result<Vec<Value>, BusError> {
        let destination = self.bus.has_broker.then_some(NAME);
        self.bus.call(&Call { destination, path, interface, member, body })
    }

    fn property(&mut self, path: &str, interface: &str, name: &str) -> Result<Value, BusError> {
        let body = [Value::text(interface), Value::text(name)];
        let answer = self.call_on(path, "org.freedesktop.DBus.Properties", "Get", &body)?;
        Ok(match answer.into_iter().next() {
            Some(Value::Variant(value)) => *value,
            _ => Value::Bool(false),
        })
    }

    /// Asks to be told when jobs end.
    fn listen(&mut self) -> Result<(), BusError> {
        if self.listening {
            return Ok(());
        }
        if self.bus.has_broker {
            let rule = format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'");
            self.bus.call(&Call {
                destination: Some("org.freedesktop.DBus"),
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member: "AddMatch",
                body: &[Value::text(rule)],
            })?;
        }
        self.call("Subscribe", &[])?;
        self.listening = true;
        Ok(())
    }

    /// Waits for the end of a unit's job. Returns its result, which is `done` if all is well.
    ///
    /// systemd tells it by a signal, and does not always when it is reloading at that moment. So it is asked, too.
    fn wait_for_job(&mut self, unit: &str, answer: &[Value]) -> Result<String, BusError> {
        let Some(Value::Path(job)) = answer.first() else { return Ok("done".to_owned()) };
        let is_ours = |body: &[Value]| matches!(body.get(1), Some(Value::Path(path)) if path == job);
        let end = Instant::now() + PATIENCE;
        let mut patience = SIGNAL_PATIENCE;
        loop {
            if let Some(removed) = self.bus.wait_for("JobRemoved", patience, is_ours)? {
                return Ok(removed.get(3).and_then(Value::as_str).unwrap_or("done").to_owned());
            }
            if patience.is_zero() {
                return self.result(unit);
            }
            match self.property(job, "org.freedesktop.systemd1.Job", "State") {
                Ok(_) if Instant::now() >= end => return Err(BusError::no_answer()),
                Ok(_) => {}
                Err(error @ BusError::Broken(_)) => return Err(error),
                // The job is over. Its signal has come with this answer, or does not come any more.
                Err(BusError::Refused(..)) => patience = Duration::ZERO,
            }
        }
    }

    /// How a job that started a unit has ended, of which no signal told.
    fn result(&mut self, unit: &str) -> Result<String, BusError> {
        let answer = self.call("LoadUnit", &[Value::text(unit)])?;
        let path = answer.first().and_then(Value::as_str).unwrap_or_default().to_owned();
        let state = self.property(&path, "org.freedesktop.systemd1.Unit", "ActiveState")?;
        Ok(if state.as_str() == Some("active") { "done" } else { "failed" }.to_owned())
    }

    /// Makes a scope with this process in it and waits until it is there. Slices that do not exist are made with it, such that they
    /// end with the last unit that is in them. What a container of this name has left behind is removed before.
    ///
    /// # Errors
    /// If systemd refuses.
    pub fn start_scope(&mut self, unit: &UnitPlan, pid: i32) -> Result<Started, Failure> {
        let doing = || format!("start systemd unit {}", unit.name);
        self.listen().doing(doing)?;
        let slices = self.missing_slices(unit).doing(doing)?;
        let mut answer = self.start(unit, pid, &slices);
        if answer.as_ref().is_err_and(|error| error.is(UNIT_EXISTS)) {
            let processes = self.clear(&unit.name)?;
            if processes > 0 {
                return Ok(Started::InUse(processes));
            }
            // Somebody else may have made a slice meanwhile.
            let slices = self.missing_slices(unit).doing(doing)?;
            answer = self.start(unit, pid, &slices);
        }
        let answer = answer.doing(doing)?;
        match self.wait_for_job(&unit.name, &answer).doing(doing)?.as_str() {
            "done" => Ok(Started::Yes),
            other => Err(Failure::because(format!("systemd could not start it: {other}")).doing(doing())),
        }
    }

    fn start(&mut self, unit: &UnitPlan, pid: i32, slices: &[String]) -> Result<Vec<Value>, BusError> {
        let mut properties = pairs(&unit.properties);
        properties.push(pair("PIDs", Value::Array("u".to_owned(), vec![Value::U32(pid.cast_unsigned())])));
        let slice = |name: &String| {
            let unneeded = pair("StopWhenUnneeded", Value::Bool(true));
            Value::Struct(vec![Value::text(name.as_str()), list(vec![unneeded])])
        };
        let others = Value::Array("(sa(sv))".to_owned(), slices.iter().map(slice).collect());
        self.call("StartTransientUnit", &[Value::text(&unit.name), Value::text("fail"), list(properties), others])
    }

    /// The slices of the unit that systemd does not know.
    fn missing_slices(&mut self, unit: &UnitPlan) -> Result<Vec<String>, BusError> {
        let mut missing = Vec::new();
        for slice in unit.slices() {
            match self.call("LoadUnit", &[Value::text(&slice)]) {
                Ok(answer) => {
                    let path = answer.first().and_then(Value::as_str).unwrap_or_default().to_owned();
                    let active = self.property(&path, "org.freedesktop.systemd1.Unit", "ActiveState")?;
                    let file = self.property(&path, "org.freedesktop.systemd1.Unit", "FragmentPath")?;
                    if active.as_str() == Some("inactive") && file.as_str() == Some("") {
                        missing.push(slice);
                    }
                }
                Err(error @ BusError::Broken(_)) => return Err(error),
                Err(BusError::Refused(..)) => missing.push(slice),
            }
        }
        Ok(missing)
    }

    /// Removes a unit that a dead container left: one that failed, or that has no processes. One that has some stays, and they are
    /// counted.
    fn clear(&mut self, name: &str) -> Result<usize, Failure> {
        let doing = || format!("remove what is left of systemd unit {name}");
        let processes = match self.call("GetUnitProcesses", &[Value::text(name)]) {
            Err(error) if error.is(NO_SUCH_UNIT) => return Ok(0),
            Ok(answer) => match answer.first() {
                Some(Value::Array(_, list)) => list.len(),
                _ => 0,
            },
            // Not active: nobody is in it.
            Err(BusError::Refused(..)) => 0,
            Err(error) => return Err(Failure::from(error).doing(doing())),
        };
        if processes > 0 {
            return Ok(processes);
        }
        self.stop(name).map(|()| 0)
    }

    /// Stops a unit and waits until systemd has forgotten it. One that does not exist is success.
    ///
    /// # Errors
    /// If systemd refuses, or does not forget it in time.
    pub fn stop(&mut self, name: &str) -> Result<(), Failure> {
        let doing = || format!("stop systemd unit {name}");
        let unit = [Value::text(name)];
        if !self.is_loaded(name).doing(doing)? {
            return Ok(());
        }
        self.listen().doing(doing)?;
        match self.call("StopUnit", &[Value::text(name), Value::text("replace")]) {
            Err(error) if error.is(NO_SUCH_UNIT) => return Ok(()),
            answer => self.wait_for_job(name, &answer.doing(doing)?).doing(doing)?,
        };
        // A failed unit stays until that is reset; another one goes by itself, a moment later.
        match self.call("ResetFailedUnit", &unit) {
            Err(error @ BusError::Broken(_)) => return Err(Failure::from(error).doing(doing())),
            Ok(_) | Err(BusError::Refused(..)) => {}
        }
        let end = Instant::now() + PATIENCE;
        while self.is_loaded(name).doing(doing)? {
            if Instant::now() >= end {
                return Err(Failure::because("systemd still knows it").doing(doing()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn is_loaded(&mut self, name: &str) -> Result<bool, BusError> {
        match self.call("GetUnit", &[Value::text(name)]) {
            Err(error) if error.is(NO_SUCH_UNIT) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// Changes properties of a unit until it ends.
    ///
    /// # Errors
    /// If systemd refuses; nothing is changed then.
    pub fn set_properties(&mut self, name: &str, properties: &[Planned<Property>]) -> Result<(), Failure> {
        let body = [Value::text(name), Value::Bool(true), list(pairs(properties))];
        let doing = || format!("change systemd unit {name}");
        self.call("SetUnitProperties", &body).doing(doing)?;
        // systemd writes the files after it has answered, and before it looks at the next message.
        self.is_loaded(name).map(drop).doing(doing)
    }

    /// Moves a process of the caller's into a unit, or into a directory below that of the unit: where the caller may not write to the cgroup
    /// that both have in common.
    ///
    /// # Errors
    /// If systemd refuses.
    pub fn attach(&mut self, name: &str, below: &Path, pid: i32) -> Result<(), Failure> {
        let pids = Value::Array("u".to_owned(), vec![Value::U32(pid.cast_unsigned())]);
        let below = if below.as_os_str().is_empty() { String::new() } else { format!("/{}", below.display()) };
        let body = [Value::text(name), Value::text(below), pids];
        self.call("AttachProcessesToUnit", &body).map(drop).doing(|| format!("move process {pid} into systemd unit {name}"))
    }
}
