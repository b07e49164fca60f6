//! The image cache, imports, and builds from real packages.

use std::fs;
use std::io::Read;
use std::path::Path;

use super::*;

/// The default image in the machine's cache, built if it is not there.
pub(crate) fn default_image() -> Result<Image, ImageError> {
    plain_image(DEFAULT_NAME, Flavour::Cloud)
}

/// An image without extra packages in the machine's cache, built if it is not there.
pub(crate) fn plain_image(name: &str, flavour: Flavour) -> Result<Image, ImageError> {
    build(&BuildOptions {
        name: name.into(),
        packages: Vec::new(),
        flavour,
        refresh: false,
        cache_dir: cache_dir()?,
        progress: &|step| println!("{step}"),
    })
}

/// Whether images can be built here; says why a test does not run where they cannot.
fn apt_is_here() -> bool {
    let here = std::process::Command::new("apt-get").arg("--version").output().is_ok();
    if !here {
        println!("not run: there is no apt-get, so no image can be built");
    }
    here
}

fn cache() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn options(cache: &Path, name: &str) -> ImportOptions {
    let kernel = cache.join("own-kernel");
    let mut bytes = vec![0; 0x300];
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    fs::write(&kernel, bytes).expect("written");
    ImportOptions {
        name: name.into(),
        kernel: Some(kernel),
        os: "linux".into(),
        ..ImportOptions::default()
    }
}

#[test]
fn image_builds_and_a_second_build_returns_it() {
    if !apt_is_here() {
        return;
    }
    let image = default_image().expect("the image builds");
    let cache = cache_dir().expect("a place");
    assert_eq!(find(&cache, DEFAULT_NAME).expect("it is there"), image);
    let steps = std::cell::RefCell::new(Vec::new());
    let again = build(&BuildOptions {
        name: DEFAULT_NAME.into(),
        packages: Vec::new(),
        flavour: Flavour::Cloud,
        refresh: false,
        cache_dir: cache,
        progress: &|step| steps.borrow_mut().push(step),
    });
    assert_eq!(again.expect("it is there already"), image);
    assert_eq!(steps.into_inner(), [Progress::Cached]);
    for package in
        ["busybox-static", "busybox", "iperf", "iperf3", "iproute2", "iputils-ping", "tcpdump"]
    {
        assert!(image.packages.contains_key(package), "{package}");
    }
}

#[test]
fn image_builds_twice_to_the_same_bytes_and_takes_extra_packages() {
    if !apt_is_here() {
        return;
    }
    // Packages come from the machine's cache; the two builds share nothing else.
    let shared = cache_dir().expect("a place").join("debs");
    default_image().expect("the image builds");
    let make = || {
        let cache = cache();
        fs::create_dir_all(cache.path().join("debs")).expect("made");
        for deb in fs::read_dir(&shared).expect("the default image left packages").flatten() {
            let to = cache.path().join("debs").join(deb.file_name());
            std::os::unix::fs::symlink(deb.path(), to).expect("linked");
        }
        let image = build(&BuildOptions {
            name: "with-socat".into(),
            packages: vec!["socat".into()],
            flavour: Flavour::Cloud,
            refresh: false,
            cache_dir: cache.path().into(),
            progress: &|_| {},
        });
        (image.expect("the image builds"), cache)
    };
    let ((one, _one), (two, _two)) = (make(), make());
    assert_eq!(one.hash, two.hash);
    assert!(one.packages.contains_key("socat"));
    let read = |path: &Option<PathBuf>| fs::read(path.as_ref().expect("named")).expect("there");
    assert!(read(&one.boot.initrd) == read(&two.boot.initrd), "the archives differ");
    assert!(read(&one.boot.kernel) == read(&two.boot.kernel), "the kernels differ");
    let mut initrd = Vec::new();
    lz4_flex::frame::FrameDecoder::new(read(&one.boot.initrd).as_slice())
        .read_to_end(&mut initrd)
        .expect("LZ4");
    for path in ["usr/bin/socat\0", "usr/bin/tcpdump\0", "usr/sbin/modprobe\0", "dev/console\0"] {
        let found = initrd.windows(path.len()).any(|bytes| bytes == path.as_bytes());
        assert!(found, "{path}");
    }
    assert!(!initrd.windows(14).any(|bytes| bytes == b"usr/share/doc/"));
}

#[test]
fn an_unknown_package_is_named_and_leaves_no_image() {
    if !apt_is_here() {
        return;
    }
    let cache = cache();
    let error = build(&BuildOptions {
        name: "x".into(),
        packages: vec!["no-such-package-anywhere".into()],
        flavour: Flavour::Cloud,
        refresh: false,
        cache_dir: cache.path().into(),
        progress: &|_| {},
    });
    let text = error.expect_err("there is no such package").to_string();
    assert!(text.contains("`no-such-package-anywhere`"), "{text}");
    assert_eq!(list(cache.path()).expect("readable"), []);
}

#[test]
fn an_imported_image_is_listed_found_and_removed() {
    let cache = cache();
    let image = import(&options(cache.path(), "mine"), cache.path()).expect("imported");
    assert_eq!(image.kernel_args, "console=ttyS0 panic=-1");
    assert_eq!(list(cache.path()).expect("readable"), std::slice::from_ref(&image));
    assert_eq!(find(cache.path(), "mine").expect("there"), image);
    // A second name shares the file and keeps it when the first goes.
    let other = import(&options(cache.path(), "other"), cache.path()).expect("imported");
    assert_eq!(other.boot, image.boot);
    remove(cache.path(), "mine").expect("removed");
    assert_eq!(find(cache.path(), "other").expect("still there"), other);
    remove(cache.path(), "other").expect("removed");
    assert!(!other.boot.kernel.expect("a kernel").exists());
    let error = remove(cache.path(), "other").expect_err("gone").to_string();
    assert!(error.contains("no image `other`"), "{error}");
}

#[test]
fn a_replaced_image_keeps_its_files_for_labs_that_start_then_goes() {
    let cache = cache();
    let first = import(&options(cache.path(), "mine"), cache.path()).expect("imported");
    let mut changed = options(cache.path(), "mine");
    let initrd = cache.path().join("own-initrd");
    fs::write(&initrd, "archive").expect("written");
    changed.initrd = Some(initrd);
    let second = import(&changed, cache.path()).expect("imported");
    assert_ne!(first.hash, second.hash);
    let kernel = first.boot.kernel.expect("a kernel");
    assert!(kernel.exists());
    let place = fs::File::open(kernel.parent().expect("a place")).expect("there");
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    place.set_modified(long_ago).expect("our own directory");
    import(&options(cache.path(), "other"), cache.path()).expect("imported");
    // `other` has the same content and took the place over.
    assert!(kernel.exists());
    place.set_modified(long_ago).expect("our own directory");
    remove(cache.path(), "other").expect("removed");
    assert!(!kernel.exists());
    assert!(second.boot.initrd.expect("an archive").exists());
}

#[test]
fn what_a_killed_build_left_is_swept_and_never_taken_for_an_image() {
    let cache = cache();
    let leaving = cache.path().join("unfinished-abc");
    fs::create_dir_all(leaving.join("image")).expect("made");
    let half = cache.path().join("store/half");
    fs::create_dir_all(&half).expect("made");
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(&half).and_then(|half| half.set_modified(long_ago)).expect("our own directory");
    assert_eq!(list(cache.path()).expect("readable"), []);
    import(&options(cache.path(), "mine"), cache.path()).expect("imported");
    assert!(!leaving.exists());
    assert!(!half.exists());
}

#[test]
fn a_damaged_description_is_named_and_the_others_are_listed() {
    let cache = cache();
    let image = import(&options(cache.path(), "good"), cache.path()).expect("imported");
    fs::write(cache.path().join("images/bad.json"), "{").expect("written");
    assert_eq!(list(cache.path()).expect("readable"), [image]);
    let error = find(cache.path(), "bad").expect_err("damaged").to_string();
    assert!(error.contains("images/bad.json"), "{error}");
}

#[test]
fn an_image_whose_file_is_gone_says_which() {
    let cache = cache();
    let image = import(&options(cache.path(), "mine"), cache.path()).expect("imported");
    let kernel = image.boot.kernel.expect("a kernel");
    fs::remove_file(&kernel).expect("removed");
    let error = find(cache.path(), "mine").expect_err("incomplete").to_string();
    assert!(error.contains(&kernel.display().to_string()), "{error}");
}

#[test]
fn an_image_whose_file_was_cut_says_which_and_how_much() {
    let cache = cache();
    let image = import(&options(cache.path(), "mine"), cache.path()).expect("imported");
    let kernel = image.boot.kernel.expect("a kernel");
    let whole = fs::metadata(&kernel).expect("there").len();
    let file = fs::File::options().write(true).open(&kernel).expect("opened");
    file.set_len(whole / 2).expect("cut");
    let error = find(cache.path(), "mine").expect_err("cut").to_string();
    for part in [&kernel.display().to_string(), &whole.to_string(), "again"] {
        assert!(error.contains(part), "{error}");
    }
    // The same file again mends it, though a directory for this content is there.
    import(&options(cache.path(), "mine"), cache.path()).expect("imported");
    find(cache.path(), "mine").expect("whole");
}

#[test]
fn names_never_leave_the_cache() {
    let cache = cache();
    for name in ["", ".", "..", "../x", "a/b", "-x", "a b", "ä", &"x".repeat(101)] {
        assert!(matches!(find(cache.path(), name), Err(StoreError::Name { .. })), "{name}");
        assert!(matches!(remove(cache.path(), name), Err(StoreError::Name { .. })), "{name}");
        let error = import(&options(cache.path(), name), cache.path()).expect_err("refused");
        assert!(matches!(error, ImportError::Store(StoreError::Name { .. })), "{name}");
    }
}

#[test]
fn imports_that_cannot_boot_are_refused() {
    let cache = cache();
    let nothing =
        ImportOptions { name: "x".into(), os: "linux".into(), ..ImportOptions::default() };
    let error = import(&nothing, cache.path()).expect_err("nothing to boot");
    assert!(matches!(error, ImportError::Nothing { .. }));
    let lone = ImportOptions { initrd: Some("/dev/null".into()), ..nothing.clone() };
    let error = import(&lone, cache.path()).expect_err("no kernel");
    assert!(matches!(error, ImportError::NeedsKernel { .. }));
    let text = cache.path().join("text");
    fs::write(&text, "hello").expect("written");
    let kernel = ImportOptions { kernel: Some(text.clone()), ..nothing.clone() };
    assert!(matches!(import(&kernel, cache.path()), Err(ImportError::Unlike { .. })));
    let disk = ImportOptions { disk: Some(text), ..nothing.clone() };
    assert!(matches!(import(&disk, cache.path()), Err(ImportError::Unlike { .. })));
    let gone = ImportOptions { disk: Some("/nonexistent/disk".into()), ..nothing };
    let error = import(&gone, cache.path()).expect_err("no such file").to_string();
    assert!(error.contains("/nonexistent/disk"), "{error}");
}

/// A file that is zero but for `parts`.
fn disk_of(cache: &Path, name: &str, length: usize, parts: &[(usize, &[u8])]) -> PathBuf {
    let mut bytes = vec![0; length];
    for (at, part) in parts {
        bytes[*at..at + part.len()].copy_from_slice(part);
    }
    let path = cache.join(name);
    fs::write(&path, bytes).expect("written");
    path
}

fn import_disk(cache: &Path, disk: PathBuf, with_kernel: bool) -> Result<Image, ImportError> {
    let mut given = ImportOptions { disk: Some(disk), ..options(cache, "x") };
    if !with_kernel {
        (given.kernel, given.initrd) = (None, None);
    }
    import(&given, cache)
}

#[test]
fn disks_are_told_apart_by_their_content() {
    let cache = cache();
    let cache = cache.path();
    let signature: &[u8] = b"\x55\xaa";
    for (name, length, parts, boots, holds_data) in [
        ("mbr", 1024, &[(510, signature)][..], true, true),
        ("gpt", 4096, &[(510, signature), (512, b"EFI PART")], true, true),
        ("ext4", 4096, &[(0x438, b"\x53\xef")], false, true),
        ("iso", 0x9000, &[(0x8001, b"CD001")], false, true),
        ("squashfs", 1024, &[(0, b"hsqs")], false, true),
        ("blank", 1024, &[], false, true),
    ] {
        let disk = disk_of(cache, name, length, parts);
        let found = |with_kernel| {
            import_disk(cache, disk.clone(), with_kernel)
                .map(|image| image.boot.disk.expect("a disk").format)
        };
        assert_eq!(found(true).is_ok(), holds_data, "{name}: {:?}", found(true));
        assert_eq!(found(false).is_ok(), boots, "{name}: {:?}", found(false));
        assert!(found(true).is_ok_and(|format| format == DiskFormat::Raw));
    }
    let qcow2 = disk_of(cache, "qcow2", 1024, &[(0, b"QFI\xfb")]);
    let image = import_disk(cache, qcow2, false).expect("imported");
    assert_eq!(image.boot.disk.expect("a disk").format, DiskFormat::Qcow2);
}

#[test]
fn files_that_are_no_disks_are_refused_by_name() {
    let cache = cache();
    let cache = cache.path();
    for (name, parts, word) in [
        ("vmdk", &[(0, &b"KDMV"[..])][..], "VMDK"),
        ("vdi", &[(0x40, b"\x7f\x10\xda\xbe"), (510, b"\x55\xaa")], "VDI"),
        ("vhdx", &[(0, b"vhdxfile")], "VHDX"),
        ("gzip", &[(0, b"\x1f\x8b")], "gzip"),
        ("tar", &[(257, b"ustar")], "tar"),
        ("noise", &[(0, b"\x93\x17\xc2"), (700, b"\x01\x02")], "neither the magic number"),
    ] {
        let disk = disk_of(cache, name, 4096, parts);
        for with_kernel in [false, true] {
            let error = import_disk(cache, disk.clone(), with_kernel).expect_err(name);
            let text = error.to_string();
            assert!(matches!(error, ImportError::Unlike { .. }), "{name}: {text}");
            assert!(text.contains(word) && text.contains(name), "{text}");
        }
    }
    let ext4 = disk_of(cache, "ext4", 4096, &[(0x438, b"\x53\xef")]);
    let text = import_disk(cache, ext4, false).expect_err("nothing boots").to_string();
    assert!(text.contains("--kernel FILE"), "{text}");
}

#[test]
fn an_unknown_operating_system_is_refused_with_the_known_ones() {
    let cache = cache();
    let given = ImportOptions { os: "solaris".into(), ..options(cache.path(), "x") };
    let text = import(&given, cache.path()).expect_err("unknown").to_string();
    for part in ["`solaris`", "--os", "debian", "freebsd"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(list(cache.path()).expect("readable").is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let error = import(&options(cache().path(), "x"), Path::new("/proc/nowhere"));
    let text = error.expect_err("not writable").to_string();
    assert!(text.contains("/proc/nowhere"), "{text}");
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_709_251_199, "2024-02-29T23:59:59Z"),
        (1_735_689_599, "2024-12-31T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(store::rfc3339(seconds), expected);
    }
}
