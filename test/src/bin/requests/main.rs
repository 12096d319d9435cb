//! Sends the same requests to our API server and to a kube-apiserver, and compares the answers:
//! `cargo run -p ropewalk-test --bin requests`.
//!
//! Where `KUBECONFIG` is set, its cluster answers, and what the repository has of a kube-apiserver's answers must be the
//! same, whether Ropewalk is installed there or its definitions alone; elsewhere those answers stand in for it. What a run
//! makes on a cluster it removes again. A difference that no row of `test/requests/explained.yaml` is about
//! fails, and so does a row that is about none, or a `docs/standalone-api.md` with another table.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

mod case;
mod cases;
mod compare;
mod explained;
mod kinds;
mod normal;
mod recorded;
mod server;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use serde_json::Value;

use case::Case;
use compare::differences;
use explained::Row;
use server::{Answer, Target};

/// Compares our API server with a kube-apiserver.
#[derive(Parser)]
struct Arguments {
    /// Bring the repository up to date: the document's table and, with a cluster, the recorded answers.
    #[arg(long)]
    write: bool,
    /// Only cases whose name contains this.
    filter: Option<String>,
}

type Answers = BTreeMap<(String, String), Answer>;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let Arguments { write, filter } = Arguments::parse();
    if write && filter.is_some() {
        bail!("only what a whole run finds can be kept: name no cases");
    }
    let matches = |case: &Case| filter.as_ref().is_none_or(|filter| case.name.contains(filter));
    let cases: Vec<Case> = cases::all().into_iter().filter(matches).collect();
    let rows = explained::rows()?;
    let ours = Target::ours()?.run(&cases).await?;
    let mut faults = 0;
    let theirs = if std::env::var_os("KUBECONFIG").is_some() {
        let theirs = Target::cluster().await?.run(&cases).await?;
        if write {
            recorded::write(&theirs)?;
        } else {
            let mut recorded = recorded::read()?;
            recorded.retain(|(name, _), _| cases.iter().any(|case| case.name == *name));
            faults += compare(&recorded, &theirs, &[], "recorded").unexplained;
        }
        theirs
    } else {
        recorded::read()?
    };
    let found = compare(&ours, &theirs, &rows, "ours");
    if filter.is_none() {
        for (row, _) in rows.iter().zip(&found.used).filter(|(_, used)| **used == 0) {
            println!("no difference is explained by \"{}\"", row.what);
            faults += 1;
        }
        let (document, wanted) = explained::document(&rows)?;
        if document != wanted && write {
            explained::write(&wanted)?;
        } else if document != wanted {
            println!("docs/standalone-api.md has another table: run with --write");
            faults += 1;
        }
    }
    println!(
        "{} requests, {} equal, {} rows explained, {} unexplained",
        ours.len(),
        found.equal,
        rows.len(),
        found.unexplained
    );
    Ok(if found.unexplained + faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a comparison came to.
struct Found {
    /// Answers without any difference.
    equal: usize,
    /// Differences without a row, and answers without another one; printed.
    unexplained: usize,
    /// How many differences each row explains.
    used: Vec<usize>,
}

fn compare(ours: &Answers, theirs: &Answers, rows: &[Row], name: &str) -> Found {
    let mut sum = Found { equal: 0, unexplained: 0, used: vec![0; rows.len()] };
    let show = |value: Option<&Value>| value.map_or("-".into(), ToString::to_string);
    for ((case, step), our) in ours {
        let Some(their) = theirs.get(&(case.clone(), step.clone())) else {
            println!("{case}: {step}: only one of the two was asked");
            sum.unexplained += 1;
            continue;
        };
        let found = differences(case, step, our, their);
        sum.equal += usize::from(found.is_empty());
        for difference in found {
            let about = rows.iter().zip(&mut sum.used).filter(|(row, _)| row.covers(&difference));
            if about.map(|(_, used)| *used += 1).count() > 0 {
                continue;
            }
            sum.unexplained += 1;
            println!("{case}: {step}: {}", difference.path);
            println!("    {name:<8} {}", show(difference.ours));
            println!("    theirs   {}", show(difference.theirs));
        }
    }
    sum
}
