use std::io::{Error, ErrorKind};

use super::*;

const WITH_VMX: &str = "processor\t: 0\nflags\t\t: fpu vme vmx sse\n";
const WITHOUT: &str = "processor\t: 0\nflags\t\t: fpu vmxnet sse svmx\nbugs\t\t: svm\n";

#[test]
fn a_device_without_processor_support_is_unusable_without_a_trial() {
    let kvm = judge(Ok(()), WITHOUT).expect("needs no trial");
    assert_eq!(kvm.state, KvmState::Unusable);
    assert!(kvm.why.contains("neither vmx nor svm"), "{}", kvm.why);
}

#[test]
fn processor_support_alone_leaves_the_answer_to_a_trial() {
    assert_eq!(judge(Ok(()), WITH_VMX), None);
    assert_eq!(judge(Ok(()), "flags\t: svm\n"), None);
}

#[test]
fn a_device_that_does_not_open_says_what_to_do() {
    let why = |kind: ErrorKind| judge(Err(Error::from(kind)), WITH_VMX).expect("unusable").why;
    assert!(why(ErrorKind::NotFound).contains("kvm_intel"));
    assert!(why(ErrorKind::PermissionDenied).contains("group `kvm`"));
    assert!(why(ErrorKind::Other).contains("does not open"));
}

#[test]
fn a_trial_is_remembered_until_circumstances_change() {
    let cache = tempfile::tempdir().expect("a directory");
    if circumstances().is_none() {
        println!("not run: QEMU is missing, so no trial can be remembered");
        return;
    }
    assert_eq!(recall(cache.path()), None);
    let bad = Kvm { state: KvmState::Unusable, why: "it crawled".into() };
    remember(cache.path(), &bad);
    let recalled = recall(cache.path()).expect("remembered");
    assert_eq!(recalled.state, KvmState::Unusable);
    assert!(recalled.why.starts_with("it crawled"));
    let text = fs::read_to_string(memory_path(cache.path())).expect("a file");
    let mut memory: Memory = serde_json::from_str(&text).expect("our own");
    memory.boot_id = "another boot".into();
    fs::write(memory_path(cache.path()), serde_json::to_vec(&memory).expect("JSON"))
        .expect("written");
    assert_eq!(recall(cache.path()), None);
    fs::write(memory_path(cache.path()), "damaged").expect("written");
    assert_eq!(recall(cache.path()), None);
}

/// The trial itself, under TCG: what it asks of a guest, ours gives.
#[tokio::test]
async fn the_trial_passes_with_a_sane_guest_and_fails_without_qemu() {
    let Ok(image) = crate::image::tests::default_image() else {
        println!("not run: there is no image to boot");
        return;
    };
    let gone = attempt(&image, Path::new("/nonexistent/qemu"), Resolved::Tcg).await;
    assert!(gone.expect_err("no QEMU").contains("QEMU is missing"));
    if qemu::version(&qemu::program()).is_err() {
        println!("not run: there is no QEMU");
        return;
    }
    // Its limits are for KVM; under TCG on a loaded machine only these two ends are possible.
    match attempt(&image, &qemu::program(), Resolved::Tcg).await {
        Ok(()) => {}
        Err(why) => assert!(why.contains("the console did not show"), "{why}"),
    }
}

#[tokio::test]
async fn tcg_is_granted_and_kvm_by_name_fails_with_the_reason_where_it_cannot_be() {
    let Ok(image) = crate::image::tests::default_image() else {
        println!("not run: there is no image to boot");
        return;
    };
    let cache = tempfile::tempdir().expect("a directory");
    let (accel, _) = resolve(Accel::Tcg, &image, cache.path()).await.expect("always");
    assert_eq!(accel, Resolved::Tcg);
    let kvm = probe(cache.path());
    match kvm.state {
        KvmState::Unusable => {
            let error = resolve(Accel::Kvm, &image, cache.path()).await.expect_err("unusable");
            assert!(error.to_string().contains(&kvm.why), "{error}");
            let (accel, why) =
                resolve(Accel::Auto, &image, cache.path()).await.expect("falls back");
            assert_eq!((accel, why), (Resolved::Tcg, kvm.why));
        }
        KvmState::Untried | KvmState::Usable => {
            println!("this machine looks fit for KVM: {}", kvm.why);
            let auto = resolve(Accel::Auto, &image, cache.path()).await.expect("always");
            let again = probe(cache.path());
            assert_eq!(auto.0 == Resolved::Kvm, again.state == KvmState::Usable);
        }
    }
}
