//! `tapestry link`: changes links of a running lab, from another terminal.

use tapestry_lab::control::{self, LinkRequest, Request};
use tapestry_lab::rundir;

use crate::FAILED;

/// Change links of a running lab: take them down, bring them up, or set their parameters.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The run: its directory, its name under runs/, or `last`
    run: String,
    /// The link's name; several with ranges and commas: `'wire[0-3],lan'`
    link: String,
    #[command(subcommand)]
    change: Change,
}

#[derive(clap::Subcommand)]
enum Change {
    /// Take its carrier away: frames on it are lost
    Down,
    /// Give it its carrier back
    Up,
    /// Set parameters and leave the others, for example `rate=5Mbit/s loss=3% trace=none`
    Set {
        /// A key of a link in topology files, with its value; for one direction also as there:
        /// `'a->b={loss: 3%, delay: 20ms}'`
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<String>,
        /// Only for one direction: the node that sends, or `'a->b'`
        #[arg(long, visible_alias = "direction", value_name = "NODE|A->B")]
        from: Option<String>,
    },
}

/// A setting as a line of YAML.
fn setting(text: &str) -> Result<String, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, for example `loss=3%`")?;
    if value.contains('\n') {
        return Err("expected one line".to_owned());
    }
    Ok(format!("{key}: {value}\n"))
}

pub(crate) fn main(args: &Args) -> anyhow::Result<u8> {
    let run = rundir::find(&args.run)?;
    let change = match &args.change {
        Change::Down => LinkRequest::Down,
        Change::Up => LinkRequest::Up,
        Change::Set { settings, from } => {
            // A name that is no text cannot be sent; absolute names of files still work then.
            let here = std::env::current_dir().ok().filter(|here| here.to_str().is_some());
            let directory = here.unwrap_or_default();
            LinkRequest::Set { settings: settings.concat(), from: from.clone(), directory }
        }
    };
    let request = Request::Link { link: args.link.clone(), change };
    let status = control::ask(&run, &request, |_| Ok(()))?;
    Ok(u8::try_from(status).unwrap_or(FAILED))
}
