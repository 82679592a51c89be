//! Lists of processors and memory nodes, read as the kernel reads them (`bitmap_parselist()` of lib/bitmap-str.c; cpuset(7), "List format").

/// Reads a list over the numbers from 0 to below `width`: `0-3,7`, blanks as good as commas, `N` for the last number, `all`, and
/// `0-9:1/2` for one of each two.
///
/// # Errors
/// The kernel's errno: `EINVAL` for what is no list, `EOVERFLOW` for numbers above 32 bits, `ERANGE` for those from `width` on.
pub(super) fn parse(list: &str, width: u32) -> Result<Vec<u32>, i32> {
    let line = list.split(['\n', '\0']).next().unwrap_or_default();
    let mut found = Vec::new();
    for region in line.split([',', ' ', '\t', '\r', '\x0b', '\x0c']).filter(|region| !region.is_empty()) {
        Region::parse(region, width)?.collect(width, &mut found)?;
    }
    Ok(found)
}

/// A part of a list: the first `used` numbers of each `group`.
struct Region {
    first: u32,
    last: u32,
    used: u32,
    group: u32,
}

impl Region {
    fn parse(text: &str, width: u32) -> Result<Self, i32> {
        let end = width.saturating_sub(1);
        let (range, pattern) = text.split_once(':').map_or((text, None), |(range, pattern)| (range, Some(pattern)));
        let (first, last) = match range.split_once('-') {
            _ if range.eq_ignore_ascii_case("all") => (0, end),
            Some((first, last)) => (number(first, end)?, number(last, end)?),
            // A pattern is of a range.
            None if pattern.is_some() => return Err(libc::EINVAL),
            None => number(range, end).map(|one| (one, one))?,
        };
        let (used, group) = match pattern {
            Some(pattern) => {
                let (used, group) = pattern.split_once('/').ok_or(libc::EINVAL)?;
                (number(used, end)?, number(group, end)?)
            }
            None => (last.saturating_add(1), last.saturating_add(1)),
        };
        Ok(Self { first, last, used, group })
    }

    fn collect(&self, width: u32, into: &mut Vec<u32>) -> Result<(), i32> {
        if self.first > self.last || self.group == 0 || self.used > self.group {
            return Err(libc::EINVAL);
        }
        if self.last >= width {
            return Err(libc::ERANGE);
        }
        into.extend((self.first..=self.last).filter(|number| (number - self.first) % self.group < self.used));
        Ok(())
    }
}

fn number(text: &str, last: u32) -> Result<u32, i32> {
    if text == "N" {
        return Ok(last);
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(libc::EINVAL);
    }
    text.parse().map_err(|_| libc::EOVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn lists() {
        assert_eq!(parse("0-2,7", 8), Ok(vec![0, 1, 2, 7]));
        assert_eq!(parse("0, 1\n", 2), Ok(vec![0, 1]));
        assert_eq!(parse("", 2), Ok(vec![]));
        assert_eq!(parse("all", 3), Ok(vec![0, 1, 2]));
        assert_eq!(parse("N", 3), Ok(vec![2]));
        assert_eq!(parse("1-N:1/2", 8), Ok(vec![1, 3, 5, 7]));
    }

    #[test]
    fn what_is_none_is_refused_as_by_the_kernel() {
        for list in ["x", "0,x", "1-0", "-1", "0-", "0-1:1", "0:1/2", "0-1:1/0", "0-1:2/1"] {
            assert_eq!(parse(list, 8), Err(libc::EINVAL), "{list}");
        }
        assert_eq!(parse("2", 2), Err(libc::ERANGE));
        assert_eq!(parse("0-77", 2), Err(libc::ERANGE));
        assert_eq!(parse("0-4294967295", 2), Err(libc::ERANGE));
        assert_eq!(parse("99999999999", 2), Err(libc::EOVERFLOW));
    }
}
