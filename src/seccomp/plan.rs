//! `linux.seccomp` of config.json, understood and checked.

use serde::{Deserialize, Serialize, Serializer};

use super::Bpf;
use super::arch::{ARCHES, Arch};
use super::compile::{Options, Policy, Refusal, Rule, compile};
use super::condition::{Condition, Op};
use crate::plan::Findings;
use crate::spec::{self, Field, SyscallArg, SyscallRule};

/// A filter that is ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Filter {
    /// The program; shown as its number of instructions.
    #[serde(rename = "instructions", serialize_with = "summary")]
    pub program: Bpf,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2), with `NEW_LISTENER` if there is a listener.
    pub flags: u64,
    /// Who gets the notifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
    /// Names in the profile that this runtime knows on no architecture. They have no effect; worth a debug message, no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// Where the descriptor of the notifications goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The path of a listening `AF_UNIX` stream socket.
    pub path: String,
    /// What is sent along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
}

fn summary<S: Serializer>(program: &Bpf, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(program.len()).unwrap_or(u64::MAX))
}

/// The filter that `linux.seccomp` asks for (runtime-spec, config-linux.md, "Seccomp"). `None` if there are problems.
pub fn plan(seccomp: &spec::Seccomp, field: &Field, findings: &mut Findings) -> Option<Filter> {
    let policy = policy(seccomp, field, findings);
    let notifies = check_notify(seccomp, field, findings);
    let flags = flags(seccomp, notifies, field, findings)?;
    let compiled = match compile(&policy?, Options { enosys: true }) {
        Ok(compiled) => compiled,
        Err(refusal) => {
            findings.problem(refused_at(&refusal, field), refusal.to_string());
            return None;
        }
    };
    let path = seccomp.listener_path.clone().filter(|_| notifies);
    let listener = path.map(|path| Listener { path, metadata: seccomp.listener_metadata.clone() });
    Some(Filter { program: compiled.program, flags, listener, unknown: compiled.unknown })
}

fn refused_at(refusal: &Refusal, field: &Field) -> Field {
    match refusal {
        Refusal::Conflict { later, .. } => field.key("syscalls").index(*later),
        Refusal::TooLong => field.clone(),
    }
}

/// The profile with its strings understood; `None` if one of them is a problem.
pub fn policy<'spec>(seccomp: &'spec spec::Seccomp, field: &Field, findings: &mut Findings) -> Option<Policy<'spec>> {
    let before = findings.problems.len();
    let default = action(&seccomp.default_action, seccomp.default_errno_ret, &DEFAULT, &|| field.clone(), findings);
    let arches = arches(&seccomp.architectures, &field.key("architectures"), findings);
    let list = field.key("syscalls");
    let rules = seccomp.syscalls.iter().enumerate();
    let rules = rules.filter_map(|(position, rule)| self::rule(rule, position, &|| list.index(position), findings)).collect();
    let default = default?;
    (findings.problems.len() == before).then_some(Policy { default, arches, rules })
}

/// The actions, and whether their value has data.
const ACTIONS: &[(&str, u32, bool)] = &[
    ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD, false),
    ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS, false),
    ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD, false),
    ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP, false),
    ("SCMP_ACT_ERRNO", libc::SECCOMP_RET_ERRNO, true),
    ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE, true),
    ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW, false),
    ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG, false),
    ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF, false),
];

/// The action that asks an agent.
pub const NOTIFY: &str = "SCMP_ACT_NOTIFY";

const OPERATORS: &[(&str, Op)] = &[
    ("SCMP_CMP_NE", Op::Ne),
    ("SCMP_CMP_LT", Op::Lt),
    ("SCMP_CMP_LE", Op::Le),
    ("SCMP_CMP_EQ", Op::Eq),
    ("SCMP_CMP_GE", Op::Ge),
    ("SCMP_CMP_GT", Op::Gt),
    ("SCMP_CMP_MASKED_EQ", Op::MaskedEq),
];

const FLAGS: &[(&str, u64)] = &[
    ("SECCOMP_FILTER_FLAG_TSYNC", libc::SECCOMP_FILTER_FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_LOG", libc::SECCOMP_FILTER_FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV),
];

/// The names of the actions, for `features`.
pub fn action_names() -> impl Iterator<Item = &'static str> {
    ACTIONS.iter().map(|action| action.0)
}

/// The names of the operators, for `features`.
pub fn operator_names() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|operator| operator.0)
}

/// The names of the architectures, for `features`.
pub fn arch_names() -> impl Iterator<Item = &'static str> {
    ARCHES.iter().map(|arch| arch.name)
}

/// The names and values of the flags, for `features`.
pub fn flag_names() -> impl Iterator<Item = (&'static str, u64)> {
    FLAGS.iter().copied()
}

fn expected<'a>(there: &str, names: impl Iterator<Item = &'a str>) -> String {
    format!("expected one of {}, there is {there:?}", names.collect::<Vec<_>>().join(", "))
}

/// What the two properties of an action are called.
struct Keys {
    action: &'static str,
    errno: &'static str,
}

const DEFAULT: Keys = Keys { action: "defaultAction", errno: "defaultErrnoRet" };
const OWN: Keys = Keys { action: "action", errno: "errnoRet" };

/// `MAX_ERRNO` of linux/err.h: the kernel makes it of every greater one.
const MOST_ERRNO: u32 = 4095;

/// A field that is named only if there is something to say about it: a profile has hundreds of them.
type Named<'a> = &'a dyn Fn() -> Field;

/// The value of an action. The error number (of `TRACE`: the message for the tracer) is `EPERM` if absent; for an action
/// that takes none the specification demands an error.
fn action(name: &str, errno: Option<u32>, keys: &Keys, field: Named<'_>, findings: &mut Findings) -> Option<u32> {
    let Some((_, value, has_data)) = ACTIONS.iter().find(|action| action.0 == name) else {
        findings.problem(field().key(keys.action), expected(name, action_names()));
        return None;
    };
    match errno {
        None if *has_data => Some(value | libc::EPERM.unsigned_abs()),
        None => Some(*value),
        Some(errno) if !has_data => {
            let text = format!("expected nothing, because {name} does not take an error number, there is {errno}");
            findings.problem(field().key(keys.errno), text);
            None
        }
        Some(errno) => {
            let most = if *value == libc::SECCOMP_RET_ERRNO { MOST_ERRNO } else { libc::SECCOMP_RET_DATA };
            if errno > most {
                findings.problem(field().key(keys.errno), format!("expected at most {most}, there is {errno}"));
            }
            (errno <= most).then_some(value | errno)
        }
    }
}

/// The native architecture and those that are named, each once.
fn arches(names: &[String], field: &Field, findings: &mut Findings) -> Vec<&'static Arch> {
    let mut arches: Vec<&'static Arch> = Arch::named("SCMP_ARCH_NATIVE").into_iter().collect();
    if arches.is_empty() {
        findings.problem(field.clone(), "expected a machine that seccomp filters are known for");
    }
    for (index, name) in names.iter().enumerate() {
        match Arch::named(name) {
            None => findings.problem(field.index(index), expected(name, arch_names().chain(["SCMP_ARCH_NATIVE"]))),
            Some(arch) if arch.big_endian != cfg!(target_endian = "big") => {
                findings.problem(
                    field.index(index),
                    format!("expected an architecture with this machine's byte order, there is {name:?}"),
                );
            }
            Some(arch) if arches.contains(&arch) => {}
            Some(arch) => arches.push(arch),
        }
    }
    arches
}

fn rule<'spec>(rule: &'spec SyscallRule, position: usize, field: Named<'_>, findings: &mut Findings) -> Option<Rule<'spec>> {
    if rule.names.is_empty() {
        findings.problem(field().key("names"), "expected at least one name, there is none");
    }
    for (index, _) in rule.names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
        findings.problem(field().key("names").index(index), "expected the name of a system call, there is \"\"");
    }
    let action = action(&rule.action, rule.errno_ret, &OWN, field, findings);
    let alternatives = alternatives(&rule.args, &|| field().key("args"), findings);
    Some(Rule { names: &rule.names, action: action?, alternatives, position })
}

/// The conditions of a rule: all must hold. If an argument has several, any of them all suffices, as in runc, because
/// libseccomp takes one per argument.
fn alternatives(args: &[SyscallArg], field: Named<'_>, findings: &mut Findings) -> Vec<Vec<Condition>> {
    let conditions = args.iter().enumerate().filter_map(|(index, arg)| condition(arg, &|| field().index(index), findings));
    let mut conditions: Vec<Condition> = conditions.collect();
    let repeated = conditions.iter().enumerate().any(|(at, one)| conditions[..at].iter().any(|other| other.index == one.index));
    if repeated {
        return conditions.into_iter().map(|condition| vec![condition]).collect();
    }
    conditions.sort_by_key(|condition| condition.index);
    vec![conditions]
}

fn condition(arg: &SyscallArg, field: Named<'_>, findings: &mut Findings) -> Option<Condition> {
    if arg.index > 5 {
        findings.problem(field().key("index"), format!("expected 0 to 5, there is {}", arg.index));
    }
    let Some(&(_, op)) = OPERATORS.iter().find(|operator| operator.0 == arg.op) else {
        findings.problem(field().key("op"), expected(&arg.op, operator_names()));
        return None;
    };
    let (mask, value) = match op {
        Op::MaskedEq => (arg.value, arg.value_two & arg.value),
        Op::Ne | Op::Lt | Op::Le | Op::Eq | Op::Ge | Op::Gt => (u64::MAX, arg.value),
    };
    Some(Condition { index: arg.index, op, value, mask })
}

/// True if the profile uses `SCMP_ACT_NOTIFY`. As default action, or on `write`, it would stop the runtime itself before
/// it has handed the listener over.
fn check_notify(seccomp: &spec::Seccomp, field: &Field, findings: &mut Findings) -> bool {
    if seccomp.default_action == NOTIFY {
        findings.problem(
            field.key("defaultAction"),
            "expected any action but SCMP_ACT_NOTIFY: nobody could answer before the listener is handed over",
        );
    }
    let mut notifies = false;
    for (index, rule) in seccomp.syscalls.iter().enumerate().filter(|(_, rule)| rule.action == NOTIFY) {
        notifies = true;
        if rule.names.iter().any(|name| name == "write") {
            let text =
                "expected any action but SCMP_ACT_NOTIFY for write: nobody could answer before the listener is handed over";
            findings.problem(field.key("syscalls").index(index).key("action"), text);
        }
    }
    if notifies && seccomp.listener_path.as_deref().is_none_or(str::is_empty) {
        findings
            .problem(field.key("listenerPath"), "expected the path of a socket, because SCMP_ACT_NOTIFY is used, there is none");
    }
    if !notifies && seccomp.listener_path.as_deref().is_some_and(|path| !path.is_empty()) {
        findings.warning(field.key("listenerPath"), "left out: no rule has the action SCMP_ACT_NOTIFY");
    }
    if seccomp.listener_metadata.is_some() && seccomp.listener_path.as_deref().is_none_or(str::is_empty) {
        findings.problem(field.key("listenerMetadata"), "expected nothing without listenerPath");
    }
    notifies
}

/// The flags for seccomp(2). Where the list is absent or empty it is `SPEC_ALLOW`, as in runc and crun: the mitigation that
/// the kernel otherwise switched on for filtered tasks is expensive, and newer kernels do not switch it on either.
fn flags(seccomp: &spec::Seccomp, notifies: bool, field: &Field, findings: &mut Findings) -> Option<u64> {
    let mut flags = if seccomp.flags.is_empty() { libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW } else { 0 };
    let mut understood = true;
    for (index, name) in seccomp.flags.iter().enumerate() {
        let field = field.key("flags").index(index);
        match FLAGS.iter().find(|flag| flag.0 == name) {
            None => {
                findings.problem(field, expected(name, FLAGS.iter().map(|flag| flag.0)));
                understood = false;
            }
            Some((_, libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)) if !notifies => {
                findings.warning(field, "has no effect, because SCMP_ACT_NOTIFY is not used");
            }
            // The one other thread that there is hands the listener over; under the filter it could not (`seccomp::notify`).
            Some((_, libc::SECCOMP_FILTER_FLAG_TSYNC)) if notifies => {
                let text = "left out beside SCMP_ACT_NOTIFY; the program begins with one thread, which is filtered in any case";
                findings.warning(field, text);
            }
            Some((_, value)) => flags |= value,
        }
    }
    if notifies {
        flags |= libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    }
    understood.then_some(flags)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(profile: Value) -> (Option<Filter>, Findings) {
        let mut findings = Findings::default();
        let seccomp: spec::Seccomp = serde_json::from_value(profile).unwrap();
        let filter = plan(&seccomp, &Field::new("linux.seccomp"), &mut findings);
        (filter, findings)
    }

    fn problems(profile: Value) -> Vec<String> {
        let (filter, findings) = planned(profile);
        assert!(!findings.problems.is_empty(), "no problem, but {filter:?}");
        findings.problems.iter().map(ToString::to_string).collect()
    }

    fn filter(profile: Value) -> Filter {
        let (filter, findings) = planned(profile);
        assert_eq!(findings.problems, []);
        filter.unwrap()
    }

    #[test]
    fn unknown_words_come_with_those_that_are_known() {
        let found = problems(json!({
            "defaultAction": "SCMP_ACT_DENY",
            "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_Z80"],
            "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"],
            "syscalls": [
                { "names": ["read"], "action": "ALLOW", "args": [{ "index": 6, "value": 0, "op": "SCMP_CMP_EQUAL" }] },
                { "names": [], "action": "SCMP_ACT_ALLOW" },
                { "names": ["read", ""], "action": "SCMP_ACT_ALLOW" },
            ],
        }));
        let starts = [
            "linux.seccomp.defaultAction: expected one of SCMP_ACT_KILL, ",
            "linux.seccomp.architectures[1]: expected one of SCMP_ARCH_X86, ",
            "linux.seccomp.syscalls[0].action: expected one of SCMP_ACT_KILL, ",
            "linux.seccomp.syscalls[0].args[0].index: expected 0 to 5, there is 6",
            "linux.seccomp.syscalls[0].args[0].op: expected one of SCMP_CMP_NE, ",
            "linux.seccomp.syscalls[1].names: expected at least one name, there is none",
            "linux.seccomp.syscalls[2].names[1]: expected the name of a system call, there is \"\"",
            "linux.seccomp.flags[0]: expected one of SECCOMP_FILTER_FLAG_TSYNC, ",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
        assert!(found[4].ends_with("SCMP_CMP_MASKED_EQ, there is \"SCMP_CMP_EQUAL\""), "{}", found[4]);
    }

    #[test]
    fn error_numbers_only_where_they_are_taken() {
        let found = problems(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "defaultErrnoRet": 1,
            "syscalls": [
                { "names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1 },
                { "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000 },
            ],
        }));
        assert_eq!(
            found,
            [
                "linux.seccomp.defaultErrnoRet: expected nothing, because SCMP_ACT_ALLOW does not take an error number, there is 1",
                "linux.seccomp.syscalls[0].errnoRet: expected nothing, because SCMP_ACT_KILL does not take an error number, there is 1",
                "linux.seccomp.syscalls[1].errnoRet: expected at most 4095, there is 70000",
            ]
        );
    }

    #[test]
    fn notifications_need_somebody_who_answers() {
        let found = problems(json!({
            "defaultAction": "SCMP_ACT_NOTIFY",
            "syscalls": [{ "names": ["read", "write"], "action": "SCMP_ACT_NOTIFY" }],
            "listenerMetadata": "x",
        }));
        let fields = found.iter().map(|found| found.split(": ").next().unwrap().trim_start_matches("linux.seccomp."));
        let fields: Vec<&str> = fields.collect();
        assert_eq!(fields, ["defaultAction", "syscalls[0].action", "listenerPath", "listenerMetadata"]);
    }

    #[test]
    fn a_listener_comes_with_its_flags() {
        let profile = |action: &str| {
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
                "syscalls": [{ "names": ["mknod"], "action": action }],
                "listenerPath": "/run/agent", "listenerMetadata": "x",
            })
        };
        let (with, findings) = planned(profile("SCMP_ACT_NOTIFY"));
        let with = with.unwrap();
        assert_eq!(with.flags, 8 | 32);
        assert_eq!(findings.warnings.len(), 1, "the thread that hands the listener over is not filtered");
        assert_eq!(with.listener, Some(Listener { path: "/run/agent".to_owned(), metadata: Some("x".to_owned()) }));
        let (without, findings) = planned(profile("SCMP_ACT_ERRNO"));
        let without = without.unwrap();
        assert_eq!((without.flags, without.listener), (1, None));
        let fields: Vec<&str> = findings.warnings.iter().map(|warning| warning.field.as_str()).collect();
        assert_eq!(fields, ["linux.seccomp.listenerPath", "linux.seccomp.flags[1]"]);
    }

    #[test]
    fn flags_that_are_absent_or_empty_are_spec_allow() {
        assert_eq!(filter(json!({ "defaultAction": "SCMP_ACT_ALLOW" })).flags, 4);
        assert_eq!(filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": [] })).flags, 4);
        assert_eq!(filter(json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"] })).flags, 2);
    }

    #[test]
    fn contradictions_are_refused() {
        let found = problems(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                { "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{ "index": 1, "value": 5, "op": "SCMP_CMP_EQ" }] },
                { "names": ["ioctl"], "action": "SCMP_ACT_TRAP", "args": [{ "index": 1, "value": 5, "op": "SCMP_CMP_EQ" }] },
            ],
        }));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("linux.seccomp.syscalls[1]: contradicts syscalls[0]"), "{}", found[0]);
    }

    #[test]
    fn a_program_that_the_kernel_would_not_take_is_refused() {
        let args = |i: u64| json!([{ "index": 1, "value": i * 7919, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": i * 7919 }]);
        let rules: Vec<Value> =
            (1..3000).map(|i| json!({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": args(i) })).collect();
        let found = problems(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }));
        assert!(found[0].starts_with("linux.seccomp: the program would have more than the 4096 instructions"), "{}", found[0]);
    }

    #[test]
    fn unknown_names_are_listed_without_a_warning() {
        let rules = json!([{ "names": ["read", "read_minds"], "action": "SCMP_ACT_ALLOW" }]);
        let (filter, findings) = planned(json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules }));
        assert_eq!(filter.unwrap().unknown, ["read_minds"]);
        assert_eq!(findings, Findings::default());
    }

    #[test]
    fn the_program_is_shown_as_its_length() {
        let shown = serde_json::to_value(filter(json!({ "defaultAction": "SCMP_ACT_ALLOW" }))).unwrap();
        assert_eq!(shown["instructions"], json!(filter(json!({ "defaultAction": "SCMP_ACT_ALLOW" })).program.len()));
    }
}
