use agentguard_common::verb::Verb;
use agentguard_common::verdict::{Mode, Verdict};

use super::*;
use crate::testing::manifest;

fn retirement() -> Retirement {
    Retirement {
        time: Timestamp::from_nanos(1),
        by: "root (uid 0)".to_owned(),
        reason: "replaced".to_owned(),
    }
}

fn indexes(set: &[(u32, Arc<Manifest>)]) -> Vec<u32> {
    set.iter().map(|(index, _)| *index).collect()
}

#[test]
fn an_agent_keeps_its_index_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agents.json");
    let mut registry = Registry::load(&path).unwrap();
    let (a, b) = (manifest("a"), manifest("b"));
    let live = HashSet::new();
    assert_eq!(
        indexes(&registry.assign(&[a, Arc::clone(&b)], &live, &[]).unwrap()),
        [1, 2]
    );
    registry.save(&path).unwrap();

    let mut registry = Registry::load(&path).unwrap();
    let set = registry.assign(&[b, manifest("c")], &live, &[]).unwrap();
    assert_eq!(indexes(&set), [2, 3]);
    assert_eq!(registry.generation, 2);
}

#[test]
fn an_unknown_index_of_a_live_run_is_left_alone() {
    let mut registry = Registry::default();
    let set = registry
        .assign(&[manifest("a")], &HashSet::from([0, 1]), &[])
        .unwrap();
    assert_eq!(indexes(&set), [2]);
}

#[test]
fn indexes_are_reused_only_when_all_are_used_and_never_under_a_live_run() {
    let mut registry = Registry::default();
    let all: Vec<_> = (1..MATCHER)
        .map(|number| manifest(&format!("old-{number}")))
        .collect();
    registry.assign(&all, &HashSet::new(), &[]).unwrap();
    assert!(matches!(
        registry.clone().assign(
            &[&all[..], &[manifest("new")]].concat(),
            &HashSet::new(),
            &[]
        ),
        Err(RegistryError::Full)
    ));
    let live: HashSet<u32> = (0..MATCHER).filter(|index| *index != 7).collect();
    let left = DecisionCount {
        agent: 7,
        verb: Verb::Write,
        verdict: Verdict::Deny,
        mode: Mode::Enforce,
        count: 100,
    };
    // Whose manifest is only gone keeps it.
    let new = [manifest("new")];
    assert!(matches!(
        registry.clone().assign(&new, &live, &[left]),
        Err(RegistryError::Full)
    ));
    for agent in registry.iter_mut() {
        agent.retired = Some(retirement());
    }
    let set = registry.assign(&new, &live, &[left]).unwrap();
    assert_eq!(indexes(&set), [7]);
    let retired = registry.find("old-7", "production").unwrap();
    assert_eq!((retired.index, retired.retired.is_some()), (0, true));
    let agent = registry.by_index(7).unwrap();
    assert_eq!(agent.own_count(&DecisionCount { count: 103, ..left }), 3);
    assert_eq!(agent.own_count(&DecisionCount { count: 5, ..left }), 5);
}

#[test]
fn an_agent_without_a_number_is_kept_and_gets_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agents.json");
    let mut registry = Registry::default();
    let a = [manifest("a")];
    registry.assign(&a, &HashSet::new(), &[]).unwrap();
    let agent = registry.find_mut("a", "production").unwrap();
    (agent.index, agent.retired) = (0, Some(retirement()));
    registry.save(&path).unwrap();
    let mut registry = Registry::load(&path).unwrap();
    assert!(registry.by_index(0).is_none());
    let agent = registry.find_mut("a", "production").unwrap();
    agent.retired = None;
    let set = registry.assign(&a, &HashSet::new(), &[]).unwrap();
    assert_eq!(indexes(&set), [1]);
    assert_eq!(registry.iter().count(), 1);
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agents.json");
    fs::write(&path, "{\"generation\": 1}").unwrap();
    let error = Registry::load(&path).unwrap_err().to_string();
    assert!(
        error.contains("agents.json is damaged: missing field"),
        "{error}"
    );
}
