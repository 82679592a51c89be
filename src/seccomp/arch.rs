//! The architectures: names of the specification, tokens of the kernel, and what differs in their calling conventions.

use super::table::Column;

/// What a filter has to know about an architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct Arch {
    /// The name in config.json.
    pub name: &'static str,
    /// `AUDIT_ARCH_*` of linux/audit.h, which the kernel passes to filters. x86_64 and x32 share theirs.
    pub audit: u32,
    /// libseccomp's token: the audit token, but for x32.
    pub token: u32,
    /// Where its numbers stand in the table.
    pub column: Column,
    /// True if arguments have 64 bits. The others have 32, and only the low half of a value is compared.
    pub wide: bool,
    /// True if the most significant byte comes first.
    pub big_endian: bool,
    /// Added to the numbers of the table: the ABI bases of MIPS, the bit of x32.
    pub base: u32,
    /// True if the calls for sockets and System V IPC can also be made through `socketcall` and `ipc`.
    pub multiplexed: bool,
}

/// The bit that tells x32 calls from those of x86_64 (`__X32_SYSCALL_BIT`).
pub const X32_BIT: u32 = 0x4000_0000;

/// The audit token that x86_64 and x32 share.
pub const AUDIT_X86_64: u32 = 0xc000_003e;

const WIDE: u8 = 1;
const BIG: u8 = 2;
const MUX: u8 = 4;

const fn arch(name: &'static str, audit: u32, column: Column, base: u32, properties: u8) -> Arch {
    Arch {
        name,
        audit,
        token: audit,
        column,
        wide: properties & WIDE != 0,
        big_endian: properties & BIG != 0,
        base,
        multiplexed: properties & MUX != 0,
    }
}

/// All architectures of the specification; `SCMP_ARCH_NATIVE` is one of them.
pub static ARCHES: &[Arch] = &[
    arch("SCMP_ARCH_X86", 0x4000_0003, Column::X86, 0, MUX),
    arch("SCMP_ARCH_X86_64", AUDIT_X86_64, Column::X8664, 0, WIDE),
    Arch { token: 0x4000_003e, ..arch("SCMP_ARCH_X32", AUDIT_X86_64, Column::X32, X32_BIT, 0) },
    arch("SCMP_ARCH_ARM", 0x4000_0028, Column::Arm, 0, 0),
    arch("SCMP_ARCH_AARCH64", 0xc000_00b7, Column::Aarch64, 0, WIDE),
    arch("SCMP_ARCH_LOONGARCH64", 0xc000_0102, Column::Loongarch64, 0, WIDE),
    arch("SCMP_ARCH_M68K", 0x4, Column::M68k, 0, BIG | MUX),
    arch("SCMP_ARCH_MIPS", 0x8, Column::Mips, 4000, BIG | MUX),
    arch("SCMP_ARCH_MIPS64", 0x8000_0008, Column::Mips64, 5000, WIDE | BIG),
    arch("SCMP_ARCH_MIPS64N32", 0xa000_0008, Column::Mips64n32, 6000, BIG),
    arch("SCMP_ARCH_MIPSEL", 0x4000_0008, Column::Mips, 4000, MUX),
    arch("SCMP_ARCH_MIPSEL64", 0xc000_0008, Column::Mips64, 5000, WIDE),
    arch("SCMP_ARCH_MIPSEL64N32", 0xe000_0008, Column::Mips64n32, 6000, 0),
    arch("SCMP_ARCH_PARISC", 0xf, Column::Parisc, 0, BIG),
    arch("SCMP_ARCH_PARISC64", 0x8000_000f, Column::Parisc64, 0, WIDE | BIG),
    arch("SCMP_ARCH_PPC", 0x14, Column::Ppc, 0, BIG | MUX),
    arch("SCMP_ARCH_PPC64", 0x8000_0015, Column::Ppc64, 0, WIDE | BIG | MUX),
    arch("SCMP_ARCH_PPC64LE", 0xc000_0015, Column::Ppc64, 0, WIDE | MUX),
    arch("SCMP_ARCH_RISCV64", 0xc000_00f3, Column::Riscv64, 0, WIDE),
    arch("SCMP_ARCH_S390", 0x16, Column::S390, 0, BIG | MUX),
    arch("SCMP_ARCH_S390X", 0x8000_0016, Column::S390x, 0, WIDE | BIG | MUX),
    arch("SCMP_ARCH_SH", 0x4000_002a, Column::Sh, 0, MUX),
    arch("SCMP_ARCH_SHEB", 0x2a, Column::Sh, 0, BIG | MUX),
];

/// The name of the architecture that this binary was built for.
const NATIVE: &str = if cfg!(target_arch = "x86_64") {
    if cfg!(target_pointer_width = "32") { "SCMP_ARCH_X32" } else { "SCMP_ARCH_X86_64" }
} else if cfg!(target_arch = "x86") {
    "SCMP_ARCH_X86"
} else if cfg!(target_arch = "aarch64") {
    "SCMP_ARCH_AARCH64"
} else if cfg!(target_arch = "arm") {
    "SCMP_ARCH_ARM"
} else if cfg!(target_arch = "riscv64") {
    "SCMP_ARCH_RISCV64"
} else if cfg!(target_arch = "loongarch64") {
    "SCMP_ARCH_LOONGARCH64"
} else if cfg!(target_arch = "s390x") {
    "SCMP_ARCH_S390X"
} else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
    "SCMP_ARCH_PPC64LE"
} else if cfg!(target_arch = "powerpc64") {
    "SCMP_ARCH_PPC64"
} else if cfg!(target_arch = "powerpc") {
    "SCMP_ARCH_PPC"
} else if cfg!(all(target_arch = "mips64", target_endian = "little")) {
    "SCMP_ARCH_MIPSEL64"
} else if cfg!(target_arch = "mips64") {
    "SCMP_ARCH_MIPS64"
} else if cfg!(all(target_arch = "mips", target_endian = "little")) {
    "SCMP_ARCH_MIPSEL"
} else if cfg!(target_arch = "mips") {
    "SCMP_ARCH_MIPS"
} else if cfg!(target_arch = "m68k") {
    "SCMP_ARCH_M68K"
} else {
    ""
};

impl Arch {
    /// The architecture of this name; `SCMP_ARCH_NATIVE` is the one that this binary was built for.
    pub fn named(name: &str) -> Option<&'static Self> {
        let name = if name == "SCMP_ARCH_NATIVE" { NATIVE } else { name };
        ARCHES.iter().find(|arch| arch.name == name)
    }

    /// The number of a row of the table here, with its base.
    pub fn number(&self, row: &super::table::Row) -> Option<u32> {
        row.number(self.column).map(|number| number + self.base)
    }
}

/// The subcalls of `socketcall` (linux/net.h) and `ipc` (linux/ipc.h): name, multiplexer, value of its first argument.
pub const SUBCALLS: &[(&str, &str, u32)] = &[
    ("accept", "socketcall", 5),
    ("accept4", "socketcall", 18),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("getpeername", "socketcall", 7),
    ("getsockname", "socketcall", 6),
    ("getsockopt", "socketcall", 15),
    ("listen", "socketcall", 4),
    ("msgctl", "ipc", 14),
    ("msgget", "ipc", 13),
    ("msgrcv", "ipc", 12),
    ("msgsnd", "ipc", 11),
    ("recv", "socketcall", 10),
    ("recvfrom", "socketcall", 12),
    ("recvmmsg", "socketcall", 19),
    ("recvmsg", "socketcall", 17),
    ("semctl", "ipc", 3),
    ("semget", "ipc", 2),
    ("semop", "ipc", 1),
    ("semtimedop", "ipc", 4),
    ("send", "socketcall", 9),
    ("sendmmsg", "socketcall", 20),
    ("sendmsg", "socketcall", 16),
    ("sendto", "socketcall", 11),
    ("setsockopt", "socketcall", 14),
    ("shmat", "ipc", 21),
    ("shmctl", "ipc", 24),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shutdown", "socketcall", 13),
    ("socket", "socketcall", 1),
    ("socketpair", "socketcall", 8),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::seccomp::table::TABLE;

    #[test]
    fn tables_are_sorted() {
        assert!(SUBCALLS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(TABLE.is_sorted_by(|a, b| a.name() < b.name()));
    }

    #[test]
    fn native_is_known_and_of_this_byte_order() {
        assert_eq!(Arch::named("SCMP_ARCH_NATIVE").unwrap().big_endian, cfg!(target_endian = "big"));
    }
}
