//! Misbehaving commands next to a working camera.

use crate::support::{Folder, Server, proc_file, wait_until};
use berrymse::camera::test_card;
use std::collections::HashSet;

fn camera(name: &str, command: &[&str]) -> String {
    format!("[[camera]]\nname = {name:?}\nsource = {{ command = {command:?} }}\n")
}

/// Returns the resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = proc_file(pid, "status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distinguishes_command_failures_without_affecting_other_cameras() {
    let folder = Folder::new();
    let clip = |name: &str, bytes: usize| {
        folder.write(name, &test_card::CLIP[..bytes]).display().to_string()
    };
    let units = test_card::access_units();
    let half = clip("half", units[0].len() / 2);
    let some = clip("some", units[59].end);
    let shell = |name: &str, script: &str| camera(name, &["sh", "-c", script]);
    let complain = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $n >&2; done; \
                    echo cannot open the lens >&2; exit 3";
    let config = [
        "[[camera]]\nname = \"card\"\nsource = \"test-card\"\n".into(),
        camera("garbage", &["cat", "/dev/urandom"]),
        shell("half", &format!("cat {half}; echo half is done >&2; exec sleep 1000")),
        shell("frozen", &format!("cat {some}; exec sleep 1000")),
        camera("silent", &["sleep", "1000"]),
        camera("dead", &["false"]),
        shell("complains", complain),
        shell("text", "for n in 1 2 3; do echo Usage: camera; done"),
        camera("missing", &["no-such-camera-program"]),
        camera("folder", &["/"]),
    ]
    .concat();
    let server = Server::start(&config).await;
    server.camera_until("card", "pictures", |camera| camera["frames"].as_u64() > Some(30)).await;
    let before = resident(server.pid());

    let expected = [
        ("garbage", "; the program must write H.264 in Annex B format to its standard output"),
        ("half", "has written only part of a picture in 10 s"),
        ("frozen", "has written no picture for 10 s"),
        ("silent", "has written nothing for 10 s"),
        ("dead", "ended (exit status: 1) without writing anything"),
        ("complains", "cannot open the lens"),
        ("text", "after writing 42 bytes, but no picture; the program must write H.264"),
        ("missing", "program not found: install it, or add its directory to PATH"),
        ("folder", "cannot start \"/\": it is a directory"),
    ];
    let mut errors = HashSet::new();
    for (name, error) in expected {
        let status =
            server.camera_until(name, "failure", |camera| camera["state"] == "failed").await;
        let said = status["error"].as_str().unwrap();
        assert!(said.contains(error), "{name}: {said}");
        assert!(errors.insert(said.to_string()), "{name}: {said}");
        // A thread reads the log, so the line may appear after the status.
        wait_until(&format!("error of {name} in the log"), async || {
            let log = server.log();
            log.lines().any(|line| line.contains(name) && line.contains(error)).then_some(())
        })
        .await;
        if name != "frozen" {
            assert_eq!(status["frames"], 0, "{status:#}");
        }
    }
    let output = server.camera("complains").await["output"].clone();
    let lines: Vec<&str> = output.as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
    // The last ten lines are kept; the last one is the error.
    assert_eq!(lines.len(), 10, "{lines:?}");
    assert_eq!(lines[8..], ["line 12", "cannot open the lens"]);
    assert_eq!(server.camera("half").await["output"], serde_json::json!(["half is done"]));
    // Sixty frames were sent. Only another frame would show that the last one is complete.
    assert!(server.camera("frozen").await["frames"].as_u64() >= Some(59));

    // Gigabytes have been read. At most one access unit of 8 MiB may be in memory, in a buffer that
    // grows by doubling.
    let after = resident(server.pid());
    assert!(after < before + 16 * 1024, "{before} KiB before, {after} KiB after");

    // The working camera is not affected.
    let card = server.camera("card").await;
    assert_eq!((&card["state"], &card["restarts"]), (&"streaming".into(), &0.into()), "{card:#}");
    let frames = card["frames"].as_u64();
    server.camera_until("card", "more", |camera| camera["frames"].as_u64() > frames).await;
    let mut viewer = server.watch("/live/card").await;
    assert_eq!(viewer.text().await["type"], "init");
    // Failed commands are restarted repeatedly.
    server.camera_until("dead", "restarts", |camera| camera["restarts"].as_u64() > Some(2)).await;
}
