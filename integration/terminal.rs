//! Terminals: handed over by a console socket, or relayed in the foreground.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::{Value, json};

use crate::config;
use crate::ctx::{Cmd, Container, Ctx, Output, Running};
use crate::runner::Outcome::{self, Pass, Skip};

tests! {
    Both {
        the_console_socket_receives_the_master,
        the_terminal_is_the_controlling_one,
        the_console_is_the_same_terminal,
        console_size_is_applied,
        a_terminal_in_the_foreground_echoes,
        exit_status_with_a_terminal_in_the_foreground,
        window_size_is_forwarded,
        a_new_window_size_is_forwarded,
        exec_sends_its_terminal_to_the_console_socket,
        create_with_a_terminal_needs_a_console_socket,
        a_console_socket_without_a_terminal_is_refused,
        a_console_socket_that_nobody_serves,
        a_console_socket_that_hangs_up,
        a_console_socket_that_nobody_reads,
        the_terminal_belongs_to_the_user,
    }
}

fn on_a_terminal(c: &mut Value, script: &str) {
    config::shell(c, script);
    c["process"]["terminal"] = json!(true);
}

/// A listener on a console socket, which prints what it gets.
fn listen(ctx: &Ctx) -> (Running, String) {
    let socket = ctx.socket_path();
    let listener = ctx.command(&[ctx.probe(), "recvtty".to_owned(), socket.clone()]).spawn();
    ctx.wait_until("the socket is there", || Path::new(&socket).exists());
    (listener, socket)
}

/// Runs a container to its end behind a console socket; what its terminal printed, without carriage returns.
fn behind_socket(ctx: &Ctx, edit: impl FnOnce(&mut Value)) -> String {
    let (listener, socket) = listen(ctx);
    let mut container = ctx.container(ctx.bundle(edit));
    container.create_with(&["--console-socket", &socket]).ok();
    container.start().ok();
    listener.wait().ok().stdout.replace('\r', "")
}

/// The container's `run`, under a terminal of 41 rows and 121 columns.
pub fn in_foreground<'c>(ctx: &'c Ctx<'c>, container: &Container) -> Cmd<'c> {
    let root = ctx.path("state");
    let argv = [
        &ctx.probe(),
        "pty",
        ctx.runtime().to_str().unwrap(),
        "--root",
        &root,
        "run",
        "-b",
        container.bundle.path(),
        &container.id,
    ];
    ctx.command(&argv)
}

fn the_console_socket_receives_the_master(ctx: &Ctx) -> Outcome {
    let output = behind_socket(ctx, |c| on_a_terminal(c, "tty; test -t 0 && test -t 1 && test -t 2 && echo yes"));
    assert_eq!(output, "received 1 master yes\n/dev/pts/0\nyes\n");
    Pass
}

fn the_terminal_is_the_controlling_one(ctx: &Ctx) -> Outcome {
    assert!(behind_socket(ctx, |c| on_a_terminal(c, "echo by name > /dev/tty")).ends_with("by name\n"));
    Pass
}

fn the_console_is_the_same_terminal(ctx: &Ctx) -> Outcome {
    let output = behind_socket(ctx, |c| on_a_terminal(c, "echo by console > /dev/console; stat -c %t /dev/console"));
    assert!(output.ends_with("by console\n88\n"), "{output}");
    Pass
}

fn console_size_is_applied(ctx: &Ctx) -> Outcome {
    let output = behind_socket(ctx, |c| {
        on_a_terminal(c, "stty size");
        c["process"]["consoleSize"] = json!({ "height": 33, "width": 77 });
    });
    assert!(output.ends_with("33 77\n"), "{output}");
    Pass
}

fn a_terminal_in_the_foreground_echoes(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| on_a_terminal(c, "echo ready; read line; echo got $line")));
    let output = in_foreground(ctx, &container).stdin("typed\n").run().ok();
    let text = output.stdout.replace('\r', "");
    assert!(text.contains("ready\n") && text.ends_with("got typed\n"), "{text}");
    Pass
}

fn exit_status_with_a_terminal_in_the_foreground(ctx: &Ctx) -> Outcome {
    let container = ctx.container(ctx.bundle(|c| on_a_terminal(c, "exit 9")));
    in_foreground(ctx, &container).run().exits(9);
    Pass
}

fn window_size_is_forwarded(ctx: &Ctx) -> Outcome {
    let container =
        ctx.container(ctx.bundle(|c| on_a_terminal(c, "until stty size 2>/dev/null | grep '41 121'; do sleep 0.01; done")));
    assert_eq!(in_foreground(ctx, &container).run().ok().text(), "41 121");
    Pass
}

fn a_new_window_size_is_forwarded(ctx: &Ctx) -> Outcome {
    let container = ctx.container(
        ctx.bundle(|c| on_a_terminal(c, "echo ready; until stty size 2>/dev/null | grep '51 131'; do sleep 0.01; done")),
    );
    let run = in_foreground(ctx, &container).spawn();
    ctx.wait_until("the program runs", || run.stdout_so_far().contains("ready"));
    ctx.host(&["kill", "-USR1", &run.pid()]).ok();
    assert!(run.wait().ok().stdout.contains("51 131"));
    Pass
}

fn exec_sends_its_terminal_to_the_console_socket(ctx: &Ctx) -> Outcome {
    let container = ctx.running(|_| {});
    let (listener, socket) = listen(ctx);
    container.exec(&["--tty", "--detach", "--console-socket", &socket], &["sh", "-c", "tty; sleep 0.1"]).ok();
    assert_eq!(listener.wait().ok().stdout.replace('\r', ""), "received 1 master yes\n/dev/pts/0\n");
    Pass
}

fn create_with_a_terminal_needs_a_console_socket(ctx: &Ctx) -> Outcome {
    let mut container = ctx.container(ctx.bundle(|c| on_a_terminal(c, "exit 0")));
    container.create().exits(1).refused("console");
    Pass
}

fn a_console_socket_without_a_terminal_is_refused(ctx: &Ctx) -> Outcome {
    let (_listener, socket) = listen(ctx);
    let mut container = ctx.container(ctx.bundle(|_| {}));
    container.create_with(&["--console-socket", &socket]).exits(1);
    Pass
}

fn with_socket<'c>(ctx: &'c Ctx<'c>, socket: &str) -> (Output, Container<'c>) {
    let mut container = ctx.container(ctx.bundle(|c| on_a_terminal(c, "cat")));
    let output = container.create_with(&["--console-socket", socket]);
    (output, container)
}

fn nothing_is_left(ctx: &Ctx, container: &Container) {
    assert!(!ctx.state_root().join(&container.id).exists());
    assert_eq!(ctx.host(&["find", "/sys/fs/cgroup", "-name", &format!("*{}*", container.id)]).text(), "");
}

/// Nobody listens any more; or somebody does, and takes no more connections.
fn a_console_socket_that_nobody_serves(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others wait for ever");
    let socket = ctx.socket_path();
    let listener = ctx.command(&[ctx.probe(), "deaf".to_owned(), socket.clone()]).spawn();
    ctx.wait_until("the socket is there", || Path::new(&socket).exists());
    // There is room for one.
    let _first = UnixStream::connect(&socket).unwrap();
    let (output, container) = with_socket(ctx, &socket);
    output.exits(1).refused("connect to console socket").refused("has not accepted a connection for ten seconds");
    nothing_is_left(ctx, &container);
    drop(listener);
    let (output, container) = with_socket(ctx, &socket);
    output.exits(1).refused("connect to console socket").refused("connection refused");
    nothing_is_left(ctx, &container);
    Pass
}

fn a_console_socket_that_hangs_up(ctx: &Ctx) -> Outcome {
    needs_rt!(ctx, "others say something else");
    let socket = ctx.socket_path();
    let listener = UnixListener::bind(&socket).unwrap();
    let (output, container) = std::thread::scope(|scope| {
        scope.spawn(|| drop(listener.accept().unwrap()));
        with_socket(ctx, &socket)
    });
    // It could be late, after the terminal is sent.
    if output.code == 0 {
        return Skip("it did not hang up in time".to_owned());
    }
    output.exits(1).refused("send the terminal to the console socket").refused("broken pipe");
    nothing_is_left(ctx, &container);
    Pass
}

/// The terminal is on its way for ever, and the container is one as any other.
fn a_console_socket_that_nobody_reads(ctx: &Ctx) -> Outcome {
    let socket = ctx.socket_path();
    let listener = UnixListener::bind(&socket).unwrap();
    let (output, container) = with_socket(ctx, &socket);
    output.ok();
    container.start().ok();
    assert_eq!(container.status(), "running");
    container.exec(&[], &["true"]).ok();
    // Whoever had the other end is gone, as after a closed window.
    drop(listener);
    ctx.wait_until("the program is hung up on", || container.status() == "stopped");
    container.delete().ok();
    nothing_is_left(ctx, &container);
    Pass
}

fn the_terminal_belongs_to_the_user(ctx: &Ctx) -> Outcome {
    let uid = if ctx.uid() == 0 { 1000 } else { 0 };
    let output = behind_socket(ctx, |c| {
        on_a_terminal(c, "stat -c %u /dev/pts/0");
        c["process"]["user"] = json!({ "uid": uid, "gid": 0 });
    });
    assert!(output.ends_with(&format!("\n{uid}\n")), "{output}");
    Pass
}
