//! What `features` says of seccomp (runtime-spec: features-linux.md, "Seccomp").

use bulkhead_sys::seccomp::{are_flags_available, is_action_available};
use bulkhead_types::oci::SeccompFeatures;

use super::names;
use super::profile::Action;

/// The names that profiles may use here. The lists do not depend on the machine, as with runc, but
/// for the supported flags: those that the running kernel takes.
pub fn features() -> SeccompFeatures {
    let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let is_supported = |name: &&str| names::flag(name).is_ok_and(are_flags_available);
    SeccompFeatures {
        enabled: is_action_available(Action::Errno(0).value()),
        actions: list(&names::ACTIONS),
        operators: list(&names::OPERATORS),
        archs: list(&names::ARCHITECTURES),
        known_flags: list(&names::FLAGS),
        supported_flags: list(
            &names::FLAGS.into_iter().filter(is_supported).collect::<Vec<&str>>(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_whole_and_this_kernel_has_every_flag() {
        let features = features();
        assert!(features.enabled);
        assert_eq!(
            [features.actions.len(), features.operators.len(), features.archs.len()],
            [9, 7, 23]
        );
        assert_eq!(features.known_flags.len(), 4);
        // the newest of them is of Linux 5.19
        assert_eq!(features.supported_flags, features.known_flags);
    }
}
