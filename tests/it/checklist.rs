//! The guide's checklist, answered from made-up records.

use bkbench::results::{
    AuditReport, AuditedWeights, CHECKLIST, ChecklistStatus, Finding, RunRecord, checklist,
    comparisons,
};
use bkbench::units::Bytes;

use crate::made_up::{diverged, longcontext, noise, with_nll};

/// A run of which every item is met.
pub(crate) fn exemplary() -> RunRecord {
    let mut record = with_nll(&longcontext(&[512, 2048], 5, 200), |cell| {
        2.0 + 0.1 * noise(cell)
    });
    for model in ["resnetbk", "mamba", "no-mixer"] {
        let checks = [
            Finding::EqualData {
                ids_sha256: "00".into(),
                tokenizer_sha256: "00".into(),
                data_order_sha256: "00".into(),
                difference: None,
            },
            Finding::Determinism {
                n_steps: 20,
                weights_sha256: "00".into(),
                moments_sha256: "00".into(),
                difference: None,
            },
        ];
        record.audits.push(AuditReport {
            model: model.into(),
            weights: AuditedWeights::Initial,
            seed: 42,
            checks: checks.map(Into::into).into(),
        });
    }
    record.files.keep_checkpoints = true;
    record.config_sha256 = record.config.sha256().unwrap();
    record
}

/// The items, by number from 1, that are not met.
fn not_met(record: &RunRecord) -> Vec<usize> {
    let items = checklist(record, &comparisons(record));
    assert_eq!(items.len(), CHECKLIST.len());
    let json = serde_json::to_value(record).unwrap();
    for item in &items {
        assert!(!item.evidence.is_empty(), "{item:?}");
        for pointer in &item.evidence {
            assert!(
                json.pointer(pointer).is_some(),
                "{pointer} points at nothing"
            );
        }
    }
    let numbered = (1..).zip(&items);
    let open = numbered.filter(|(_, item)| item.status == ChecklistStatus::NotMet);
    open.map(|(number, _)| number).collect()
}

#[test]
fn every_item_of_the_checklist_follows_from_the_record() {
    let record = exemplary();
    assert_eq!(not_met(&record), [0; 0]);
    let edited = |edit: fn(&mut RunRecord)| {
        let mut record = record.clone();
        edit(&mut record);
        not_met(&record)
    };
    assert_eq!(edited(|r| r.config.train.learning_rate = 1.0), [1]);
    assert_eq!(edited(|r| r.audits.clear()), [2, 12]);
    assert_eq!(edited(|r| drop(r.cells.pop())), [3, 7]);
    let diverged_once = |r: &mut RunRecord| {
        r.cells[0].outcome = diverged(30);
        r.cells[0].metrics.as_mut().unwrap().evaluation = None;
        r.derive();
    };
    assert_eq!(edited(diverged_once), [7], "four of five seeds completed");
    let other_order = |r: &mut RunRecord| {
        r.cells[1].metrics.as_mut().unwrap().data_order_sha256 = "11".into();
    };
    assert_eq!(edited(other_order), [3]);
    assert_eq!(edited(|r| r.hardware = serde_json::Value::Null), [4]);
    let unmeasured = |r: &mut RunRecord| {
        r.cells[0]
            .metrics
            .as_mut()
            .unwrap()
            .memory
            .peak_memory_bytes = Bytes(0);
    };
    assert_eq!(edited(unmeasured), [6]);
    assert_eq!(edited(|r| r.files.keep_checkpoints = false), [12]);
    assert_eq!(
        edited(|r| r.cells.clear()),
        [3, 6, 7, 8, 9, 10, 11],
        "nothing has run"
    );
    let few = with_nll(&longcontext(&[512], 4, 200), |cell| 2.0 + 0.1 * noise(cell));
    assert_eq!(not_met(&few), [2, 7, 12]);
    let one = longcontext(&[512], 1, 200);
    assert_eq!(not_met(&one), [2, 7, 8, 9, 10, 11, 12]);
}
