//! `tapestry doctor`: what this machine can do, and the command that mends each lack.

use std::io::IsTerminal;

use tapestry_lab::doctor::{self, Health};

/// Say what this machine can do, and the command that mends each lack.
///
/// Exit status 0 if a topology of virtual machines can run here, else 1.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let findings = doctor::examine();
    if args.json {
        crate::say!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        let color = std::io::stdout().is_terminal();
        for finding in &findings {
            let (mark, code) = match finding.health {
                Health::Good => ("ok  ", "32"),
                Health::Lacking => ("note", "33"),
                Health::Bad => ("FAIL", "31"),
            };
            let mark = if color { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
            crate::say!("{mark}  {:<11} {}", finding.subject, finding.text);
            if let Some(mend) = &finding.mend {
                crate::say!("      {:<11} mend: {mend}", "");
            }
        }
    }
    let bad = findings.iter().any(|finding| finding.health == Health::Bad);
    Ok(u8::from(bad))
}
