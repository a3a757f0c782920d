//! Lists of mount options, one in a line: no attribute is both set and cleared, and a later option
//! wins over an earlier one.
#![no_main]

use bulkhead_runtime::mount_options::MountOptions;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let options: Vec<&str> = text.split('\n').collect();
    let Ok(parsed) = MountOptions::parse(&options) else { return };
    for (set, clear) in [(parsed.set, parsed.clear), (parsed.recursive_set, parsed.recursive_clear)]
    {
        // the ways of keeping access times are one field of the kernel's: it is cleared, then set
        let (set, clear) = (set.0 & !0x70, clear.0 & !0x70);
        assert_eq!(set & clear, 0, "{set:#x} is set and cleared");
    }
    let data = parsed.data.iter().flat_map(|(key, value)| [Some(key), value.as_ref()]);
    for word in data.flatten() {
        assert!(!word.contains('\0'), "a zero byte reaches the kernel");
    }
    // said twice is said once, but for lists that grow
    let twice: Vec<&str> = options.iter().chain(&options).copied().collect();
    let twice = MountOptions::parse(&twice).expect("each option was good before");
    let flags = |it: &MountOptions| (it.set, it.clear, it.recursive_set, it.recursive_clear);
    assert_eq!(flags(&twice), flags(&parsed));
    assert_eq!((twice.bind, twice.id_map), (parsed.bind, parsed.id_map));
});
