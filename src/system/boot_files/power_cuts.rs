//! Power cuts, saves and failed trials during updates of the boot files, on a simulated machine.

use crate::system::boot_files::disk::SECTOR;
use crate::system::boot_files::error::BootFilesError;
use crate::system::boot_files::fat_image::build;
use crate::system::boot_files::simulation::{
    MIB, OLD_CONFIG, Release, World, read_all, record, set, update,
};
use crate::system::boot_files::state::Phase;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::Cursor;

/// Restarts and updates until the set is in use. Returns the reports.
fn settle(world: &mut World, set: &Release, release: &str) -> Vec<Phase> {
    let mut reports = vec![];
    for _ in 0..4 {
        let started = world.start();
        assert_eq!(world.read_config(), world.config, "{reports:?}");
        reports.push(update(world, set).unwrap());
        assert_eq!(world.read_config(), world.config, "{reports:?}");
        if started == release {
            assert_eq!(reports.last(), Some(&Phase::Current));
            assert!(world.variables.is_empty());
            assert!(world.state.is_empty(), "{}", world.state);
            return reports;
        }
    }
    panic!("not settled: {reports:?}");
}

/// A world before each step: the first update, the confirmation, the second update, in the other
/// direction, and its confirmation.
fn stages(is_old: bool, new: &Release, newer: &Release) -> Vec<(World, &'static str)> {
    let mut world = World::new(is_old);
    world.start();
    let first = world.clone();
    assert_eq!(update(&mut world, new).unwrap(), Phase::Waiting);
    world.start();
    let confirm = world.clone();
    assert_eq!(update(&mut world, new).unwrap(), Phase::Current);
    assert_eq!(world.start(), "new");
    let second = world.clone();
    assert_eq!(update(&mut world, newer).unwrap(), Phase::Waiting);
    world.start();
    vec![(first, "new"), (confirm, "new"), (second, "newer"), (world, "newer")]
}

/// Returns the number of actions of an update without a power cut.
fn actions(world: &World, set: &Release) -> usize {
    let mut world = world.clone();
    world.left = 100_000;
    update(&mut world, set).unwrap();
    100_000 - world.left
}

#[test]
fn one_complete_set_starts_after_a_power_cut_at_any_moment() {
    let (new, newer) = (Release::new("new"), Release::new("newer"));
    for is_old in [true, false] {
        for (world, release) in stages(is_old, &new, &newer) {
            let set = if release == "new" { &new } else { &newer };
            for cut in 0..=actions(&world, set) {
                for random in [1, 2, 3] {
                    let mut world = world.clone();
                    (world.left, world.random) = (cut, random * 1000 + cut as u64);
                    let _ = update(&mut world, set);
                    world.lose_power();
                    settle(&mut world, set, release);
                }
            }
        }
    }
}

#[test]
fn configuration_saved_at_any_moment_survives() {
    let (new, newer) = (Release::new("new"), Release::new("newer"));
    for is_old in [true, false] {
        for (world, release) in stages(is_old, &new, &newer) {
            let set = if release == "new" { &new } else { &newer };
            let actions = actions(&world, set);
            for save in 0..=actions {
                let mut world = world.clone();
                world.save = Some((save, format!("saved after {save}")));
                // The lock may be released without a further action, which would save it.
                update(&mut world, set).unwrap();
                assert!(world.save.is_none() || save >= actions);
                settle(&mut world, set, release);
                // And with a power cut some time later.
                for more in [0, 1, 3, 10] {
                    let mut world = world.clone();
                    world.save = Some((save, format!("saved after {save}")));
                    world.left = save + more;
                    let _ = update(&mut world, set);
                    world.lose_power();
                    settle(&mut world, set, release);
                }
            }
        }
    }
}

/// A world in which the new set is on trial, and does not lead to a healthy system.
fn broken(is_old: bool, new: &Release) -> World {
    let mut world = World::new(is_old);
    world.start();
    assert_eq!(update(&mut world, new).unwrap(), Phase::Waiting);
    world
}

#[test]
fn returns_to_the_former_set_after_three_attempts() {
    let new = Release::new("new");
    for is_old in [true, false] {
        let before = World::new(is_old);
        let mut world = broken(is_old, &new);
        for _ in 0..3 {
            assert_eq!(world.start(), "new");
        }
        assert_eq!(world.start(), "old");
        assert_eq!(world.card[..SECTOR], before.card[..SECTOR]);
        let reverted = world.clone();
        assert_eq!(update(&mut world, &new).unwrap(), Phase::Reverted);
        // It is not tried again, but the next one is.
        assert_eq!(world.start(), "old");
        assert_eq!(update(&mut world, &new).unwrap(), Phase::Reverted);
        let newer = Release::new("newer");
        assert_eq!(update(&mut world, &newer).unwrap(), Phase::Waiting);
        settle(&mut world, &newer, "newer");
        // A power cut while the return is recorded.
        for cut in 0..=actions(&reverted, &new) {
            let mut world = reverted.clone();
            (world.left, world.random) = (cut, cut as u64);
            let _ = update(&mut world, &new);
            world.lose_power();
            assert_eq!(world.start(), "old");
            assert_eq!(update(&mut world, &new).unwrap(), Phase::Reverted);
            assert_eq!(world.read_config(), world.config);
        }
    }
}

#[test]
fn configuration_changed_during_the_trial_survives_the_return() {
    let new = Release::new("new");
    let returned = |world: &mut World| while world.start() != "old" {};
    for is_old in [true, false] {
        // Saved on the page while the switch waits.
        let mut world = broken(is_old, &new);
        world.save_config("saved");
        returned(&mut world);
        assert_eq!(world.read_config(), "saved");
        // Edited on a computer between two attempts: there, the new half is the drive.
        let mut world = broken(is_old, &new);
        world.start();
        world.write_config("edited");
        returned(&mut world);
        assert_eq!(world.read_config(), "edited");
        // Edited on a computer where the former half is the drive: after recovery on a computer.
        let mut world = broken(is_old, &new);
        world.save_config("saved");
        let former = World::new(is_old).card[..SECTOR].to_vec();
        world.card[..SECTOR].copy_from_slice(&former);
        world.mounted = 0;
        world.write_config("edited later");
        assert_eq!(world.start(), "old");
        assert_eq!(world.read_config(), "edited later");
        // Emptied: removing the card too early can leave an empty file.
        let mut world = broken(is_old, &new);
        world.write_config("\n");
        returned(&mut world);
        assert_eq!(world.read_config(), OLD_CONFIG);
        assert_eq!(update(&mut world, &new).unwrap(), Phase::Reverted);
    }
}

#[test]
fn passwords_do_not_remain_in_the_former_half() {
    let new = Release::new("new");
    for is_old in [true, false] {
        let mut world = World::new(is_old);
        world.start();
        // An earlier version, which lies in clusters that are no longer in use.
        let at = 2 * MIB + 5 * MIB;
        world.card[at..at + 8].copy_from_slice(b"password");
        world.save_config("password = \"another secret\"");
        let contains = |world: &World, text: &[u8]| {
            let half = &world.card[2 * MIB..11 * MIB];
            memchr::memmem::find(half, text).is_some()
        };
        assert!(contains(&world, b"password") && contains(&world, b"another secret"));
        update(&mut world, &new).unwrap();
        assert!(contains(&world, b"another secret"));
        settle(&mut world, &new, "new");
        assert!(!contains(&world, b"password") && !contains(&world, b"another secret"));
        assert!(world.read_config().contains("another secret"));
        // The boot files remain, for recovery on a computer.
        let sector = record(2, 9);
        world.card[446..462].copy_from_slice(&sector[446..462]);
        let area = 2 * MIB..2 * MIB + if is_old { 18 } else { 9 } * MIB;
        let volume = Cursor::new(world.card[area].to_vec());
        let volume = fatfs::FileSystem::new(volume, fatfs::FsOptions::new()).unwrap();
        let mut files = BTreeMap::new();
        read_all(volume.root_dir(), "", &mut files);
        assert_eq!(files["old.dtb"], b"old");
        assert!(files["berrymse.toml"].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn refuses_what_does_not_fit_and_changes_nothing() {
    let new = Release::new("new");
    let mut world = World::new(true);
    world.start();
    let refused = |world: &World, expected: fn(&BootFilesError) -> bool| {
        let mut after = world.clone();
        let error = update(&mut after, &new).unwrap_err();
        assert!(expected(&error), "{error}");
        assert_eq!(after.card[..11 * MIB], world.card[..11 * MIB]);
        assert!(after.state.is_empty() && after.variables.is_empty());
    };
    // The user's files extend into the second half.
    let mut files = set("old");
    files.insert("large", vec![1; 10 * MIB]);
    let mut large = world.clone();
    large.card[2 * MIB..20 * MIB].copy_from_slice(&build(&files, 18 << 20).unwrap());
    refused(&large, |error| matches!(error, BootFilesError::InUse));
    // They fit, but not together with the new boot files.
    let full_image = (0..).find_map(|clusters| {
        let mut files = set("old");
        files.insert("large", vec![1; 9 * MIB - clusters * 2048]);
        build(&files, 9 << 20).ok()
    });
    let mut full = World::new(false);
    full.card[2 * MIB..11 * MIB].copy_from_slice(&full_image.unwrap());
    refused(&full, |error| matches!(error, BootFilesError::Full { .. }));
    // A damaged file system.
    let mut damaged = world.clone();
    damaged.card[2 * MIB + 2048 + 20..2 * MIB + 2048 + 60].fill(7);
    refused(&damaged, |error| matches!(error, BootFilesError::Fat(_)));
    // Another partition table.
    let mut other = world.clone();
    other.card[446 + 4] = 0x0e;
    refused(&other, |error| matches!(error, BootFilesError::Partitions(_)));
    // A damaged boot file of the release.
    std::fs::write(new.0.join("boot.scr"), "damaged").unwrap();
    refused(&world, |error| matches!(error, BootFilesError::Damaged(_)));
}

#[test]
fn healthy_system_ends_a_trial_without_state() {
    let (new, mut world) = (Release::new("new"), World::new(false));
    world.start();
    assert_eq!(update(&mut world, &new).unwrap(), Phase::Waiting);
    world.start();
    // The data partition was lost.
    world.state.clear();
    assert_eq!(update(&mut world, &new).unwrap(), Phase::Current);
    assert!(world.variables.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any number of power cuts and saves, with healthy and unhealthy starts in between.
    #[test]
    fn any_sequence_of_power_cuts_leaves_one_complete_set(
        is_old in any::<bool>(),
        steps in prop::collection::vec((0..80usize, 0..80usize, any::<u64>(), any::<bool>()), 1..8),
    ) {
        let (new, newer) = (Release::new("new"), Release::new("newer"));
        let mut world = World::new(is_old);
        for (cut, save, random, is_newer) in steps {
            world.start();
            assert_eq!(world.read_config(), world.config);
            (world.left, world.random) = (cut, random);
            world.save = Some((save, format!("saved {random}")));
            let _ = update(&mut world, if is_newer { &newer } else { &new });
            world.lose_power();
        }
        // Enough starts for a trial that runs out of attempts.
        for _ in 0..8 {
            world.start();
            assert_eq!(world.read_config(), world.config);
            let _ = update(&mut world, &newer);
        }
        world.firmware();
    }
}
