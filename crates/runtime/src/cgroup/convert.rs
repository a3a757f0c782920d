//! Values of the v1 controllers, which config.json has, as those of v2.

use super::CgroupError;

/// Converts v1 shares (2, 1024 by default, 262144) to a v2 weight (1, 100, 10000): the quadratic
/// through those three points on logarithmic scales that runc and crun use, so that a container
/// with default shares weighs as much as any other cgroup of the host.
pub(super) fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let l = (shares as f64).log2();
            let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
            10f64.powf(exponent).ceil() as u64
        }
    }
}

/// Converts a blkio weight (10 to 1000) to one of `io.weight` (1 to 10000), linearly.
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

/// What `memory.swap.max` gets for a limit of memory and swap together; `None` leaves it alone.
/// Both are bytes, -1 is unlimited and 0 is not given (runc: `ConvertMemorySwapToCgroupV2Value`).
pub(super) fn swap_max(memory_and_swap: i64, memory: i64) -> Result<Option<String>, CgroupError> {
    match (memory_and_swap, memory) {
        // v1 would refuse unlimited memory under a limit of both
        (0, -1) | (-1, _) => Ok(Some("max".to_owned())),
        (0, _) => Ok(None),
        (swap, -1) => Ok(Some(swap.to_string())),
        (_, 0) => Err(CgroupError::SwapWithoutMemory),
        (_, ..0) => Err(CgroupError::InvalidMemory(memory)),
        (both, memory) if both < memory => Err(CgroupError::SwapBelowMemory),
        (both, memory) => Ok(Some((both - memory).to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights() {
        for (shares, want) in [
            (0, 1),
            (2, 1),
            (3, 2),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (262_143, 10_000),
            (262_144, 10_000),
            (1 << 40, 10_000),
        ] {
            assert_eq!(weight(shares), want, "{shares}");
        }
        assert!((2..262_200).all(|shares| weight(shares) <= weight(shares + 1)));
    }

    #[test]
    fn block_weights_become_io_weights() {
        for (weight, want) in [(0, 1), (10, 1), (100, 910), (500, 4950), (1000, 10_000)] {
            assert_eq!(io_weight(weight), want, "{weight}");
        }
    }

    #[test]
    fn swap_is_what_both_have_beyond_memory() {
        for (both, memory, want) in [
            (0, 0, None),
            (0, 1000, None),
            (0, -1, Some("max")),
            (-1, 0, Some("max")),
            (-1, 1000, Some("max")),
            (500, -1, Some("500")),
            (1500, 1000, Some("500")),
            (1000, 1000, Some("0")),
        ] {
            assert_eq!(swap_max(both, memory).unwrap().as_deref(), want, "{both} {memory}");
        }
        assert!(matches!(swap_max(5, 0), Err(CgroupError::SwapWithoutMemory)));
        assert!(matches!(swap_max(5, 6), Err(CgroupError::SwapBelowMemory)));
        assert!(matches!(swap_max(5, -7), Err(CgroupError::InvalidMemory(-7))));
    }
}
