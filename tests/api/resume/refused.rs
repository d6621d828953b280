//! Other jobs, damaged files, full disks: refused in words, and nothing is overwritten.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use swathe::{Array, Difference, Error, OutputError, Pool, Result};
use swathe_tests::{pool, watch};

use super::{PAGE, Place, root};

fn double(x: u32) -> f64 {
    f64::from(x) * 2.0
}

/// The text of an error that leaves both files as they were.
fn refusal<T: std::fmt::Debug>(place: &Place, run: impl FnOnce() -> Result<T>) -> String {
    let before = place.bytes();
    let error = run().unwrap_err();
    assert!(matches!(error, Error::Output(_)), "{error}");
    assert!(place.bytes() == before, "the files have changed: {error}");
    error.to_string()
}

#[test]
fn another_job_is_refused() -> Result<()> {
    fn halve(p: &f64, x: u32) -> f64 {
        p * double(x)
    }
    let pool = pool(1);
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    at().seed(3).with(&1.0)?.map(halve, 0..100)?;
    let refused = |difference: &str, run: &dyn Fn() -> Result<Array<f64>>| {
        let text = refusal(&place, run);
        let expected = format!(
            "{path} cannot be resumed, because {difference}; run what began it, or delete {path} and {path}.progress to \
             start anew",
            path = place.output().display()
        );
        assert_eq!(text, expected);
    };
    refused(
        "it was begun with an input of 100 elements, and this one has 101",
        &|| at().seed(3).with(&1.0)?.map(halve, 0..101),
    );
    refused(
        "the contents of the input are not those that it was begun with",
        &|| at().seed(3).with(&1.0)?.map(halve, 1..101),
    );
    refused("the parameters are not those that it was begun with", &|| {
        at().seed(3).with(&1.5)?.map(halve, 0..100)
    });
    refused("it was begun with the seed 3, and this one is 4", &|| {
        at().seed(4).with(&1.0)?.map(halve, 0..100)
    });
    let module = module_path!();
    let function = format!("{module}::another_job_is_refused");
    refused(
        &format!("it was begun with the task `{function}::halve`, and this one is `{module}::double`"),
        &|| at().seed(3).map(double, 0..100),
    );
    refused(
        "it was begun with no version of the task, and this is version \"2\"",
        &|| at().task_version("2").seed(3).with(&1.0)?.map(halve, 0..100),
    );
    let text = refusal(&place, || {
        at().seed(3)
            .with(&1.0)?
            .map(|p: &f64, x: u32| *p as f32 * x as f32, 0..100)
    });
    assert!(
        text.contains("it was begun with results of the type f64, and these would be f32"),
        "{text}"
    );
    at().seed(3).with(&1.0)?.map(halve, 0..100)?;
    Ok(())
}

/// Closures of one function have one name; the place in the executable tells them apart, or the version does.
#[test]
fn the_version_stands_for_the_code() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    let (add_1, add_2) = (|x: u32| f64::from(x) + 1.0, |x: u32| f64::from(x) + 2.0);
    at().map(add_1, 0..10)?;
    let text = refusal(&place, || at().map(add_2, 0..10));
    assert!(
        text.contains("it was begun with another task of the same name, or by another build"),
        "{text}"
    );
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    let first = at().task_version("1").map(add_1, 0..10)?;
    let second = at().task_version("1").map(add_2, 0..10)?;
    assert_eq!(first, second, "the caller said so");
    let Err(Error::Output(OutputError::Changed { difference, .. })) =
        at().task_version("2").map(add_2, 0..10)
    else {
        panic!("the version differs")
    };
    let (begun, now) = ("version \"1\"".to_owned(), "version \"2\"".to_owned());
    assert_eq!(difference, Difference::Version { begun, now });
    Ok(())
}

/// Whichever byte of the head is another, the file is refused; whichever byte of the session is, the result is right.
#[test]
fn a_changed_byte_is_noticed() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    let run = || pool.batch().output_file(place.output()).map(double, 0..100);
    let whole = run()?;
    let bytes = place.bytes().1;
    for at in (0..256).chain((256..PAGE).step_by(61)).chain([PAGE - 1]) {
        place.write_progress(at, &[bytes[at] ^ 0x10]);
        let text = refusal(&place, run);
        let says = if at < 16 {
            "does not start as the progress of a job does"
        } else if (20..24).contains(&at) {
            "was written on a machine of the other byte order"
        } else {
            "is damaged: the checksum of its head does not fit"
        };
        assert!(text.contains(says), "byte {at}: {text}");
        place.write_progress(at, &bytes[at..=at]);
    }
    for (at, byte) in bytes.iter().enumerate().skip(PAGE).take(24) {
        place.write_progress(at, &[byte ^ 0x10]);
        assert_eq!(run()?, whole);
    }
    // A word that no worker writes, and a failure where there is no position.
    place.write_progress(2 * PAGE, &9999_u32.to_ne_bytes());
    let text = refusal(&place, run);
    assert!(text.contains("it says that 9999 of the"), "{text}");
    place.write_progress(2 * PAGE, &bytes[2 * PAGE..2 * PAGE + 4]);
    let bits = (2 * PAGE + 4 * 100_usize.div_ceil(chunk_len(&bytes))).next_multiple_of(64);
    place.write_progress(bits + 15, &[0x80]);
    let text = refusal(&place, run);
    assert!(text.contains("it says that position 127 failed"), "{text}");
    Ok(())
}

fn chunk_len(progress: &[u8]) -> usize {
    u64::from_ne_bytes(progress[32..40].try_into().expect("eight bytes")) as usize
}

#[test]
fn cut_off_and_missing_files_are_refused() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    let run = || pool.batch().output_file(place.output()).map(double, 0..1000);
    run()?;
    let (values, progress) = place.bytes();
    for (path, bytes) in [(place.output(), &values), (place.progress(), &progress)] {
        for len in [1, 100, 128, PAGE - 1, PAGE, bytes.len() - 1] {
            fs::write(&path, &bytes[..len.min(bytes.len() - 1)]).expect("it can be written");
            let text = refusal(&place, run);
            assert!(text.contains(&path.display().to_string()), "{len}: {text}");
            assert!(
                text.contains(" bytes instead of ")
                    || text.contains("is damaged: it ends inside its head")
                    || text.contains("does not start as"),
                "{len}: {text}"
            );
        }
        fs::write(&path, [bytes, &b"more"[..]].concat()).expect("it can be written");
        let text = refusal(&place, run);
        assert!(text.contains("is damaged: it has "), "{text}");
        fs::write(&path, bytes).expect("it can be written");
    }
    let file = fs::File::options()
        .write(true)
        .open(place.output())
        .expect("it is there");
    file.write_all_at(b"4", 23).expect("it can be written");
    let text = refusal(&place, run);
    assert!(
        text.contains("its header is not the one that was written to it"),
        "{text}"
    );

    fs::remove_file(place.output()).expect("it is there");
    let text = refusal(&place, run);
    assert!(text.contains("is damaged: it has 0 bytes instead of "), "{text}");
    assert!(!place.output().exists());
    fs::write(place.output(), &values).expect("it can be written");
    fs::remove_file(place.progress()).expect("it is there");
    let text = refusal(&place, run);
    assert!(
        text.contains("exists and is not the output of a job: there is no "),
        "{text}"
    );
    fs::remove_file(place.output()).expect("it is there");
    run()?;
    Ok(())
}

#[test]
fn foreign_files_are_refused() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    let run = || pool.batch().output_file(place.output()).map(double, 0..10);
    pool.map(double, 0..10)?.to_npy(place.output())?;
    assert!(refusal(&place, run).contains("there is no "));
    fs::write(place.progress(), "a letter to my aunt").expect("it can be written");
    assert!(refusal(&place, run).contains("does not start as the progress of a job does"));
    fs::remove_file(place.progress()).expect("it is there");
    fs::remove_file(place.output()).expect("it is there");

    fs::create_dir(place.progress()).expect("it can be made");
    assert!(refusal(&place, run).contains("it is a directory"));
    assert!(!place.output().exists());
    fs::remove_dir(place.progress()).expect("it is empty");
    fs::create_dir(place.output()).expect("it can be made");
    assert!(refusal(&place, run).contains("it is a directory"));
    fs::remove_dir(place.output()).expect("it is empty");
    let made = Command::new("mkfifo").arg(place.output()).status();
    assert!(made.expect("it starts").success());
    let text = run().unwrap_err().to_string();
    assert!(text.contains("it is not a regular file"), "{text}");

    let nowhere = place.path().join("no/such/directory/out.npy");
    let text = pool
        .batch()
        .output_file(nowhere)
        .map(double, 0..10)
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("cannot create ") && text.contains("No such file"),
        "{text}"
    );
    Ok(())
}

/// In a directory that others can write: what they have put there is neither believed nor changed.
#[test]
fn what_others_have_put_there_is_refused() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    let run = || pool.batch().output_file(place.output()).map(double, 0..10);
    let victim = place.path().join("victim");
    fs::write(&victim, "").expect("it can be written");
    let new = place.path().join("out.npy.progress.new");
    for name in [place.output(), place.progress(), new] {
        for target in [victim.clone(), place.path().join("nowhere")] {
            symlink(&target, &name).expect("it can be made");
            let text = run().unwrap_err().to_string();
            let expected = format!(
                "{} is neither believed nor written: it is a symbolic link; name the file it leads to",
                name.display()
            );
            assert!(text.starts_with(&expected), "{text}");
            assert!(fs::read(&victim).expect("it is there").is_empty());
            assert!(!place.path().join("nowhere").exists());
            fs::remove_file(&name).expect("the link is still there");
        }
    }
    fs::hard_link(&victim, place.output()).expect("it can be made");
    let text = run().unwrap_err().to_string();
    assert!(text.contains("it has 2 names (hard links)"), "{text}");
    fs::remove_file(place.output()).expect("the link is still there");
    assert!(fs::read(&victim).expect("it is there").is_empty());
    assert!(!place.progress().exists());

    let whole = run()?;
    for path in [place.output(), place.progress()] {
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
        for open in [0o664, 0o602] {
            mode(open);
            let text = refusal(&place, run);
            assert!(
                text.contains(&format!("its mode 0{open:o} lets other users write it")),
                "{text}"
            );
        }
        mode(0o600);
        // Only root can give files away.
        if chown(&path, Some(65_534), None).is_ok() {
            let text = refusal(&place, run);
            assert!(
                text.contains("it belongs to user 65534 and this process runs as user "),
                "{text}"
            );
            chown(&path, Some(0), None).expect("root can");
        }
    }
    assert_eq!(run()?, whole);
    Ok(())
}

/// A second job with the same output, in whatever process, while the first one runs.
#[test]
fn a_running_job_is_alone_with_its_files() -> Result<()> {
    fn wait(go: &String, x: u32) -> f64 {
        while !Path::new(go).exists() {
            thread::sleep(Duration::from_millis(1));
        }
        double(x)
    }
    let pool = pool(1);
    let place = Place::new();
    let go = place.path().join("go").display().to_string();
    let batch = || pool.batch().output_file(place.output()).with(&go);
    let first = batch()?.map_async(wait, 0..10)?;
    let text = batch()?.map(wait, 0..10).unwrap_err().to_string();
    assert!(
        text.starts_with(&format!(
            "{} is being written by another job",
            place.output().display()
        )),
        "{text}"
    );
    let other = Command::new(env!("CARGO_BIN_EXE_scenario"))
        .arg("resume")
        .arg(place.path())
        .output();
    let text = String::from_utf8(other.expect("it starts").stderr).expect("text");
    assert!(text.contains("is being written by another job"), "{text}");
    fs::write(&go, "").expect("the directory is there");
    assert_eq!(first.get()?[9], 18.0);
    assert_eq!(batch()?.map(wait, 0..10)?[9], 18.0);
    Ok(())
}

/// What the engine would refuse is refused before there is a file.
#[test]
fn an_impossible_job_makes_no_file() -> Result<()> {
    let pool: &Pool = &pool(1);
    let place = Place::new();
    let at = || pool.batch().output_file(place.output());
    assert!(at().chunk_size(0).map(double, 0..10).is_err());
    assert!(at().chunk_size(1).map(|x: u64| x as f64, 0..1 << 40).is_err());
    assert!(at().map(|x: u64| x as f64, 0..1 << 60).is_err());
    pool.close();
    assert!(at().map(double, 0..10).is_err());
    assert_eq!(fs::read_dir(place.path()).expect("it is there").count(), 0);
    Ok(())
}

fn no_room(place: &Place, wrap: &[&str], more: &[&str]) -> Option<String> {
    let scenario = [env!("CARGO_BIN_EXE_scenario"), "no_room"];
    let path = place.path().display().to_string();
    let line: Vec<&str> = [wrap, &scenario, &[&path], more].concat();
    let output = Command::new(line[0])
        .args(&line[1..])
        .output()
        .expect("it starts");
    if !output.status.success() {
        println!("{}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// 8 MiB on a file system of 1 MiB, mounted where nobody else sees it.
#[test]
fn a_full_file_system_is_refused_in_words() {
    let _watch = watch();
    let place = Place::new();
    let mount = format!(
        "mount -t tmpfs -o size=1m none {} && exec \"$@\"",
        place.path().display()
    );
    let Some(text) = no_room(
        &place,
        &["unshare", "--mount", "--map-root-user", "sh", "-c", &mount, "sh"],
        &[],
    ) else {
        println!("skipped: nothing may be mounted here");
        return;
    };
    let path = place.output().display().to_string();
    assert!(
        text.starts_with(&format!(
            "large: there is no room for {path}: it needs 8388736 more bytes, and its file system has "
        )),
        "{text}"
    );
    assert!(
        text.contains(
            " available; free some, or use another file system\nleft: Some(0)\nsmall: [0.0, 2.0, 4.0]\n"
        ),
        "{text}"
    );
}

/// A write behind the limit would be SIGXFSZ.
#[test]
fn a_file_size_limit_is_refused_in_words() {
    let _watch = watch();
    let place = Place::new();
    let text = no_room(&place, &[], &["4000000"]).expect("it runs");
    let path = place.output().display().to_string();
    let expected = format!(
        "large: there is no room for {path}: it needs 8388736 bytes, and the file size limit of this process is 4000000 \
         bytes; raise the limit (`ulimit -f`)\nleft: Some(0)\nsmall: [0.0, 2.0, 4.0]\n"
    );
    assert_eq!(text, expected);
}

/// A job that was only begun, whichever step it had come to, is begun again.
#[test]
fn a_crash_while_the_files_are_made_is_made_good() -> Result<()> {
    let pool = pool(1);
    let place = Place::new();
    let run = || {
        pool.batch()
            .output_file(place.output())
            .with(&place.runs())?
            .map(root, 0..100)
    };
    let whole = run()?;
    let (values, progress) = place.bytes();
    let head = [&progress[..PAGE], &vec![0; progress.len() - PAGE]].concat();
    let zeros = vec![0; values.len()];
    let half = [&values[..64], &zeros[64..]].concat();
    for (values, progress) in [
        (&[][..], None),
        (&[], Some(&head)),
        (&zeros[..1000.min(zeros.len())], Some(&head)),
        (&zeros, Some(&head)),
        (&half, Some(&head)),
    ] {
        fs::write(place.output(), values).expect("it can be written");
        match progress {
            Some(bytes) => fs::write(place.progress(), bytes).expect("it can be written"),
            None => fs::remove_file(place.progress()).expect("it is there"),
        }
        fs::write(place.path().join("out.npy.progress.new"), "half").expect("it can be written");
        assert_eq!(run()?, whole);
    }
    assert_eq!(place.counts(100), [6; 100]);
    Ok(())
}
