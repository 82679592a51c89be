//! The conversation that a plan implies, computed from its lists: what each process says and waits for, in order.
//!
//! The executors follow their lists, so whatever is off-script is a bug. [`play`] plays the scripts of all processes against each other in
//! memory: every wait is answered, nothing is left unread.

use std::collections::VecDeque;

use crate::plan::rehearsal::Instead;
use crate::plan::{BridgeStep, InitStep, LauncherStep, Plan, StartSignal};

use super::protocol::{FromInit, ToInit};

/// One line of a process's script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Says this.
    Say(String),
    /// Waits for this.
    Hear(String),
    /// The launcher: from here on it talks to init and no longer to the bridge.
    SwitchToInit,
}

fn to_init(message: &ToInit) -> String {
    message.to_string()
}

fn from_init(message: &FromInit) -> String {
    message.to_string()
}

/// The end of the link, which says that the program runs.
const END: &str = "end of file";

/// The launcher's script.
pub fn launcher(plan: &Plan) -> Vec<Line> {
    let line = |step: &LauncherStep| match step {
        LauncherStep::Tell(message) => vec![Line::Say(to_init(message))],
        LauncherStep::Await(message) => vec![Line::Hear(from_init(message))],
        LauncherStep::AwaitBirth => vec![Line::Hear("Born".to_owned()), Line::SwitchToInit],
        LauncherStep::AwaitEnd(_) => vec![Line::Hear(END.to_owned())],
        _ => Vec::new(),
    };
    plan.launcher.iter().flat_map(|planned| line(&planned.step)).collect()
}

/// The bridge's script.
pub fn bridge(plan: &Plan) -> Vec<Line> {
    let line = |step: &BridgeStep| match step {
        BridgeStep::Await(message) => Some(Line::Hear(to_init(message))),
        BridgeStep::CloneInit { .. } => Some(Line::Say("Born".to_owned())),
        BridgeStep::JoinCgroups | BridgeStep::Namespace(_) | BridgeStep::OomScoreAdj(_) | BridgeStep::Hide => None,
    };
    plan.bridge.iter().filter_map(|planned| line(&planned.step)).collect()
}

/// Init's script.
pub fn init(plan: &Plan) -> Vec<Line> {
    let starts_by_link = plan.starts_by_link();
    let line = |step: &InitStep| match step {
        InitStep::Await(message) => Some(Line::Hear(to_init(message))),
        InitStep::Send(message) => Some(Line::Say(from_init(message))),
        InitStep::AwaitStart(StartSignal::Link) => Some(Line::Hear(to_init(&ToInit::Start))),
        InitStep::Process(crate::process::ProcessStep::Terminal { .. }) => Some(Line::Say(from_init(&FromInit::Terminal))),
        InitStep::AwaitStart(StartSignal::Fifo) => Some(Line::Say(END.to_owned())),
        InitStep::Rehearsed { instead: Instead::End, .. } => Some(Line::Say(END.to_owned())),
        InitStep::Execute if starts_by_link => Some(Line::Say(END.to_owned())),
        _ => None,
    };
    plan.init.iter().filter_map(|planned| line(&planned.step)).collect()
}

/// A process in the play.
struct Player {
    script: VecDeque<Line>,
    /// What was said to it, by the number of the speaker: every link is a socket of its own.
    inboxes: [VecDeque<String>; 3],
    /// The number of the process that it talks to.
    partner: usize,
}

impl Player {
    fn new(script: Vec<Line>, partner: usize) -> Self {
        Self { script: script.into(), inboxes: Default::default(), partner }
    }

    /// Takes the next line if it can be spoken or answered now.
    fn advance(&mut self) -> Option<Result<Line, String>> {
        match self.script.front()? {
            Line::Hear(expected) => {
                let got = self.inboxes[self.partner].pop_front()?;
                if got != *expected {
                    return Some(Err(format!("expected {expected}, got {got}")));
                }
            }
            Line::SwitchToInit => self.partner = INIT,
            Line::Say(_) => {}
        }
        self.script.pop_front().map(Ok)
    }
}

/// The numbers of the players.
const LAUNCHER: usize = 0;
const BRIDGE: usize = 1;
const INIT: usize = 2;

/// Plays the scripts against each other.
///
/// # Errors
/// If a message is not the expected one, if everybody waits, or if something stays unread.
pub fn play(plan: &Plan) -> Result<(), String> {
    let first = if plan.bridge.is_empty() { INIT } else { BRIDGE };
    let mut players =
        [Player::new(launcher(plan), first), Player::new(bridge(plan), LAUNCHER), Player::new(init(plan), LAUNCHER)];
    loop {
        let mut moved = false;
        for number in 0..players.len() {
            let Some(line) = players[number].advance() else { continue };
            moved = true;
            if let Line::Say(message) = line? {
                let listener = players[number].partner;
                players[listener].inboxes[number].push_back(message);
            }
        }
        if !moved {
            break;
        }
    }
    for (player, name) in players.iter().zip(["launcher", "bridge", "init"]) {
        if let Some(line) = player.script.front() {
            return Err(format!("{name} waits for ever: {line:?}"));
        }
        if let Some(message) = player.inboxes.iter().find_map(VecDeque::front) {
            return Err(format!("{name} never reads {message}"));
        }
    }
    Ok(())
}
