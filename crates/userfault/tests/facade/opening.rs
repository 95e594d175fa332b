//! Choosing a provider, and what is said when one is refused.

use userfault::prelude::*;
use userfault::{Builder, Choice, Errno, Features, KernelFaults, Protocol, Provider, RegisterModes, UffdError};

use crate::sandbox::{Refuse, as_nobody, refuse};
use crate::support::{again, both, first_wrong, path_of, pattern, role, run, text};

#[test]
fn a_choice_is_kept() {
    for uffd in both() {
        assert!(uffd.refused().is_empty());
        assert_eq!(uffd.protocol(), Protocol::Modern);
    }
    let process = Builder::new().provider(Choice::Process).open().unwrap();
    assert_eq!(process.provider(), Provider::Process);
}

#[test]
fn a_choice_is_read_from_its_word() {
    for (word, choice) in [("auto", Choice::Auto), ("linux", Choice::Linux), ("process", Choice::Process)] {
        assert_eq!(word.parse(), Ok(choice));
    }
    assert!("kernel".parse::<Choice>().unwrap_err().contains("write auto, linux or process"));
}

#[test]
fn the_original_protocol_is_the_process_providers_and_that_is_said() {
    let original = Builder::new().protocol(Protocol::Original { fills: false });
    let error = original.clone().provider(Choice::Linux).open().unwrap_err();
    assert_eq!(
        error.to_string(),
        "no userfaultfd can be opened here:\n  linux: original protocol: ENOSYS (38); \
         no released kernel speaks it: use the process provider"
    );
    let uffd = original.open().unwrap();
    assert_eq!((uffd.provider(), uffd.protocol()), (Provider::Process, Protocol::Original { fills: false }));
    assert_eq!(uffd.refused().len(), 1);
}

#[test]
fn a_feature_that_nobody_has_is_named_for_each_provider() {
    let unknown = Features::from_bits(1 << 63);
    let error = Builder::new().require(unknown).open().unwrap_err();
    let providers: Vec<Provider> = error.refused().iter().map(|refused| refused.provider).collect();
    assert_eq!(providers, [Provider::Linux, Provider::Process]);
    let process = &error.refused()[1].error;
    assert!(matches!(process, UffdError::FeaturesMissing { missing } if *missing == unknown), "{process}");
    assert!(error.to_string().contains("\n  process: required features are not offered here: "), "{error}");
    // A wish is not.
    for uffd in [Choice::Auto, Choice::Process].map(|choice| Builder::new().provider(choice).wish(unknown).open()) {
        assert!(!uffd.unwrap().capabilities().features.contains(unknown));
    }
}

#[test]
fn faults_of_the_kernel_are_not_promised_by_the_process_provider() {
    let builder = Builder::new().provider(Choice::Process);
    let error = builder.clone().kernel_faults(KernelFaults::Require).open().unwrap_err();
    assert!(error.to_string().contains("use the linux provider"), "{error}");
    let uffd = builder.kernel_faults(KernelFaults::Try).open().unwrap();
    assert!(!uffd.capabilities().kernel_faults);
}

/// As a container's nobody: opens, says what was refused, and works.
fn open_without_privilege() {
    let error = Builder::new().provider(Choice::Linux).open().unwrap_err();
    println!("{error}");
    let UffdError::Refused { tried, .. } = &error.refused()[0].error else { panic!("{error}") };
    let answers: Vec<Errno> = tried.iter().map(|refusal| refusal.errno).collect();
    println!("answers: {answers:?}");
    let uffd = userfault::open().unwrap();
    assert_eq!(uffd.provider(), Provider::Process);
    assert_eq!(uffd.refused(), error.refused());
    let region = uffd.map(8, RegisterModes::MISSING).unwrap();
    let _monitor = uffd.serve(&region, pattern).unwrap();
    assert_eq!(first_wrong(region.window(0..8).unwrap().as_ref()), None);
}

#[test]
fn each_way_that_is_forbidden_or_absent_is_told_with_its_own_remedy() {
    if role().is_some() {
        return open_without_privilege();
    }
    let path = path_of(&each_way_that_is_forbidden_or_absent_is_told_with_its_own_remedy);
    let is_root = std::fs::metadata("/root").is_ok_and(|_| std::fs::read_dir("/root").is_ok());
    let has_device = std::path::Path::new("/dev/userfaultfd").exists();
    for is_nobody in [true, false] {
        let mut command = again(&path, if is_nobody { "nobody" } else { "filtered" });
        refuse(&mut command, Refuse::Userfaultfd);
        if is_nobody {
            as_nobody(&mut command);
        }
        let Some(output) = run(command) else { return };
        let text = text(&output);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        let call = "\n  linux: userfaultfd(2) for user mode only: EPERM (1); a seccomp filter or security module";
        assert!(text.contains(call), "{text}");
        let device = match (has_device, is_root && !is_nobody) {
            (false, _) => "ENOENT (2); in a container, add `--device /dev/userfaultfd`",
            (true, true) => "EPERM (1); a device filter forbids it",
            // Its mode may let everybody open it; then the filter forbids it.
            (true, false) => "",
        };
        assert!(text.contains(&format!("\n  linux: /dev/userfaultfd for user mode only: {device}")), "{text}");
    }
}
