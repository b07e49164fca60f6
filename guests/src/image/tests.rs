//! The image cache, and a build from real packages.

use std::fs;
use std::path::Path;

use super::*;

/// Builds the default image in the machine's cache, where guests of other tests find it.
#[test]
fn image_builds_and_a_second_build_returns_it() {
    let cache = cache_dir().expect("a place for the cache");
    let options = BuildOptions {
        name: DEFAULT_NAME.into(),
        packages: Vec::new(),
        flavour: Flavour::Cloud,
        refresh: false,
        cache_dir: cache.clone(),
        progress: &|step| println!("{step}"),
    };
    let image = build(&options).expect("the image builds");
    assert_eq!(find(&cache, DEFAULT_NAME).expect("it is there"), image);
    let again = build(&options).expect("it is there already");
    assert_eq!(again, image);
}
