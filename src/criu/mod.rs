//! Checkpoint and restore, by way of CRIU (<https://criu.org>).
//!
//! [`mod@plan`] turns flags, the container's record and what is seen of its processes into [`message::Options`], without a system call;
//! [`facts`] looks; [`client`] starts `criu swrk` and talks to it over a socket in the messages of [`message`] ([`wire`] is their
//! encoding); [`images`] is what lies beside CRIU's images. Who restores, in `launch::restore`, answers CRIU's notifications:
//! they are the moments at which namespaces exist, a terminal is handed out, and the processes are complete but do not run yet.
//!
//! What is outside of the container has to be named twice, at the dump and again at the restore, because the outside may be another
//! machine by then:
//! - **Mounts.** Every mount that came from the host gets a key of our own making (`m0`, `m1`, ...). Neither the image nor the
//!   config has a say in it, so no path in a container can be read as the key of another mount (a mount point with `]:` in it is
//!   refused, because CRIU would split it there). Which mount of the config a key stands for lies in `rt.json`; the source is that of
//!   the config at restore, never what a file beside the images says.
//! - **Stdio.** What the first three descriptors lead to is outside if it is a pipe, a socket, or a file of another mount
//!   namespace. At restore the caller's own three take their places.
//! - **Namespaces** that were joined by path are joined again, by the path that the config at restore has.
//! - **Control groups** are made as for a new container, and CRIU is told that theirs are these. CRIU itself runs in them, so that what
//!   it restores is never outside.

pub mod client;
pub mod facts;
pub mod flags;
pub mod images;
pub mod message;
pub mod plan;
pub mod wire;
