//! Whether a record is whole, and as it was written.

use super::RunRecord;

/// What makes a record less than it says: cells that are missing, hashes and derived values that do not agree.
pub fn problems(record: &RunRecord) -> Vec<String> {
    let mut problems = Vec::new();
    let (n_run, n_missing) = (record.cells.len() as u64, record.n_missing());
    if n_missing > 0 {
        let n_planned = n_run + n_missing;
        problems.push(format!(
            "the run is not finished: {n_run} of {n_planned} cells have run; go on with `bkbench resume`"
        ));
    }
    problems.extend(record.other_protocol());
    problems.extend(record.seal.problem().map(str::to_owned));
    let agrees = |hash: String| hash == record.config_sha256;
    if !record.config.sha256().is_ok_and(agrees) {
        problems.push(
            "the configuration does not have the hash that the record names: it was edited, or written by another version of bkbench".into(),
        );
    }
    if !record.is_derived() {
        problems.push(
            "the means do not follow from the cells: the record was edited, or written by another version of bkbench".into(),
        );
    }
    problems
}
