use std::fs;

use super::*;

const NET: &str = "\
params: { delay: 1ms, count: 1 }
nodes: { a: { kind: host }, b: { kind: host } }
links: [{ pair: [a, b], delay: \"${delay}\", ipv4: 10.0.0.0/24 }]
tasks: [{ name: ping, run: { a: \"ping -c ${count} b\" }, metrics: { rtt: { regex: '= [\\d.]+/([\\d.]+)/' } } }]
";

fn place(plan: &str) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("net.yaml"), NET).unwrap();
    let path = place.path().join("plan.yaml");
    fs::write(&path, plan).unwrap();
    (place, path)
}

const PLAN: &str = "topology: net.yaml\ntime: virtual\nfactors: { delay: [1ms, 2ms] }\n";

#[test]
fn the_digest_knows_what_matters() {
    let (place, path) = place(PLAN);
    let digest = || prepare(&path).unwrap().digest;
    let first = digest();
    assert_eq!(first, digest());
    fs::write(&path, format!("# a remark\n{PLAN}keep: none\ndescription: other words\n")).unwrap();
    assert_eq!(first, digest(), "words and what is kept change no run");
    fs::write(&path, format!("{PLAN}replicates: 2\n")).unwrap();
    assert_ne!(first, digest());
    fs::write(&path, PLAN).unwrap();
    fs::write(place.path().join("net.yaml"), format!("name: other\ndescription: words\n{NET}"))
        .unwrap();
    assert_eq!(first, digest(), "what a topology is called changes no run");
    fs::write(place.path().join("net.yaml"), NET.replace("ping -c", "ping -s 100 -c")).unwrap();
    assert_ne!(first, digest(), "the topology matters");
}

#[test]
fn a_directory_with_other_things_is_left_alone() {
    let (place, path) = place(PLAN);
    for (name, text) in [("report.html", "mine"), ("lock", "mine, too")] {
        let out = place.path().join(format!("out-{name}"));
        fs::create_dir(&out).unwrap();
        fs::write(out.join(name), text).unwrap();
        let refused = Campaign::open(prepare(&path).unwrap(), &out, false).unwrap_err();
        assert!(matches!(&refused, CampaignError::Foreign { entry, .. } if entry == name));
        assert!(refused.is_usage() && refused.to_string().contains(name), "{refused}");
        assert_eq!(fs::read_to_string(out.join(name)).unwrap(), text);
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
    }
    // What a campaign leaves that was killed before it began is no obstacle.
    let out = place.path().join("out");
    fs::create_dir_all(out.join(RUNS)).unwrap();
    fs::write(out.join("lock"), "").unwrap();
    fs::write(out.join(store::FILE), "").unwrap();
    Campaign::open(prepare(&path).unwrap(), &out, false).unwrap();
}

#[test]
fn a_store_that_cannot_be_read_is_said_to_be_so_at_once() {
    let (place, path) = place(PLAN);
    let out = place.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(
        out.join(store::FILE),
        "no database at all, but long enough for a header of one".repeat(99),
    )
    .unwrap();
    let refused = Campaign::open(prepare(&path).unwrap(), &out, false).unwrap_err();
    assert!(matches!(refused, CampaignError::Store(StoreError::Corrupt { .. })), "{refused}");
}

#[test]
fn a_changed_plan_is_not_gone_on_with() {
    let (place, path) = place(PLAN);
    let out = place.path().join("out");
    drop(Campaign::open(prepare(&path).unwrap(), &out, false).unwrap());
    let again = Campaign::open(prepare(&path).unwrap(), &out, false).unwrap_err();
    assert!(matches!(again, CampaignError::Exists { .. }), "{again}");
    drop(Campaign::open(prepare(&path).unwrap(), &out, true).unwrap());
    fs::write(&path, PLAN.replace("2ms", "3ms")).unwrap();
    let store = fs::read(out.join(store::FILE)).unwrap();
    let changed = Campaign::open(prepare(&path).unwrap(), &out, true).unwrap_err();
    assert!(matches!(changed, CampaignError::Changed { .. }), "{changed}");
    assert!(changed.to_string().starts_with("`factors` of the plan is not what"), "{changed}");
    assert_eq!(fs::read(out.join(store::FILE)).unwrap(), store, "nothing is overwritten");
    fs::write(&path, PLAN).unwrap();
    fs::write(place.path().join("net.yaml"), NET.replace("ping -c", "ping -s 9 -c")).unwrap();
    let changed = Campaign::open(prepare(&path).unwrap(), &out, true).unwrap_err().to_string();
    assert!(changed.starts_with("the topology ") && changed.contains("net.yaml"), "{changed}");
}

#[test]
fn a_campaign_has_one_program() {
    let (place, path) = place(PLAN);
    let out = place.path().join("out");
    let campaign = Campaign::open(prepare(&path).unwrap(), &out, false).unwrap();
    assert!(is_running(&out));
    let busy = Campaign::open(prepare(&path).unwrap(), &out, true).unwrap_err();
    assert!(matches!(busy, CampaignError::Busy { .. }), "{busy}");
    drop(campaign);
    assert!(!is_running(&out));
}

#[test]
fn what_was_never_begun_cannot_be_gone_on_with() {
    let (place, path) = place(PLAN);
    let missing = Campaign::open(prepare(&path).unwrap(), &place.path().join("out"), true);
    assert!(matches!(missing, Err(CampaignError::Store(StoreError::Missing { .. }))));
    assert!(!place.path().join("out").exists());
}

#[test]
fn every_point_is_looked_at_before_the_first_run() {
    let (_place, path) = place(&PLAN.replace("2ms", "fast"));
    let wrong = prepare(&path).unwrap_err();
    assert!(
        matches!(&wrong, CampaignError::Point { point, .. } if point == "delay=fast"),
        "{wrong}"
    );
    assert!(wrong.is_usage());
    let netns = NET.replace("kind: host", "kind: netns");
    let (place, path) = place2(&netns);
    let wrong = prepare(&path).unwrap_err();
    assert!(matches!(&wrong, CampaignError::Refused { .. }) && wrong.is_usage(), "{wrong}");
    drop(place);
}

fn place2(net: &str) -> (tempfile::TempDir, PathBuf) {
    let (place, path) = place(PLAN);
    fs::write(place.path().join("net.yaml"), net).unwrap();
    (place, path)
}

#[test]
fn runs_without_their_store_are_not_replaced() {
    for is_empty in [false, true] {
        let (place, path) = place(PLAN);
        let out = place.path().join("out");
        drop(Campaign::open(prepare(&path).unwrap(), &out, false).unwrap());
        let kept = out.join(RUNS).join("p00000-r00000");
        fs::create_dir(&kept).unwrap();
        fs::remove_file(out.join(store::FILE)).unwrap();
        if is_empty {
            fs::write(out.join(store::FILE), "").unwrap();
        }
        for resume in [false, true] {
            let wrong = Campaign::open(prepare(&path).unwrap(), &out, resume).unwrap_err();
            assert!(matches!(wrong, CampaignError::Lost { .. }) && wrong.is_usage(), "{wrong}");
            assert!(wrong.to_string().contains(store::FILE), "{wrong}");
        }
        assert!(kept.exists());
        let left = fs::metadata(out.join(store::FILE)).map(|file| file.len()).ok();
        assert_eq!(left, is_empty.then_some(0), "nothing was begun");
    }
}

#[test]
fn a_campaign_killed_before_its_store_was_made_is_begun() {
    let (place, path) = place(PLAN);
    let out = place.path().join("out");
    fs::create_dir_all(out.join(RUNS)).unwrap();
    fs::write(out.join(store::FILE), "").unwrap();
    drop(Campaign::open(prepare(&path).unwrap(), &out, false).unwrap());
    assert_eq!(Store::open(&out).unwrap().points().unwrap().len(), 2);
}
