//! A machine for classic BPF, as seccomp(2) uses it.

use rt::seccomp::Bpf;

/// What a filter sees of a system call (`struct seccomp_data`).
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: u32,
    pub audit: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, upper: bool| if upper { (value >> 32) as u32 } else { value as u32 };
        match offset {
            0 => self.number,
            4 => self.audit,
            8 | 12 => 0x5555_5555, // the instruction pointer
            _ => {
                let arg = self.args[(offset as usize - 16) / 8];
                half(arg, (offset % 8 == 4) == cfg!(target_endian = "little"))
            }
        }
    }
}

/// A decoded program.
pub struct Program(Vec<(u16, u8, u8, u32)>);

impl Program {
    pub fn new(bpf: &Bpf) -> Self {
        let decode = |b: &[u8]| (u16::from_ne_bytes([b[0], b[1]]), b[2], b[3], u32::from_ne_bytes([b[4], b[5], b[6], b[7]]));
        Self(bpf.as_bytes().chunks_exact(8).map(decode).collect())
    }

    /// The action, and how many instructions it took. Panics where the kernel would not have accepted the program.
    pub fn run(&self, call: &Call) -> (u32, usize) {
        let (mut at, mut accumulator, mut steps) = (0usize, 0u32, 0usize);
        loop {
            let (code, yes, no, k) = self.0[at];
            steps += 1;
            at += 1;
            let mut jump = |holds: bool| at += usize::from(if holds { yes } else { no });
            match code {
                0x20 => {
                    assert!(k % 4 == 0 && k < 64, "load at {k}");
                    accumulator = call.word(k);
                }
                0x54 => accumulator &= k,
                0x05 => at += k as usize,
                0x15 => jump(accumulator == k),
                0x25 => jump(accumulator > k),
                0x35 => jump(accumulator >= k),
                0x45 => jump(accumulator & k != 0),
                0x06 => return (k, steps),
                code => panic!("instruction {code:#x}"),
            }
        }
    }
}
