//! `tapestry image`: guest images.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use tapestry_guests::image::{
    self, BuildOptions, DEFAULT_NAME, Flavour, ImportError, ImportOptions, StoreError,
};

use crate::summary::count;
use crate::{FAILED, USAGE};

/// Build, import, list and remove guest images.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Make an image from Debian packages (no root needed)
    Build {
        /// Name of the image
        #[arg(long, default_value = DEFAULT_NAME)]
        name: String,
        /// Add a Debian package with its libraries; may be repeated
        #[arg(long = "package", value_name = "PACKAGE")]
        packages: Vec<String>,
        /// Debian's kernel: for virtual machines, or with drivers for every NIC model
        #[arg(long, value_enum, default_value_t = Kernel::Cloud)]
        kernel: Kernel,
        /// Look for newer package versions even if the image is there
        #[arg(long)]
        refresh: bool,
    },
    /// Take a kernel with an initial RAM disk, or a disk, as an image
    Import {
        /// Name of the image
        name: String,
        /// Linux kernel
        #[arg(long)]
        kernel: Option<PathBuf>,
        /// Initial RAM disk
        #[arg(long)]
        initrd: Option<PathBuf>,
        /// Disk image, raw or qcow2; guests never change it
        #[arg(long)]
        disk: Option<PathBuf>,
        /// Kernel command line; must put a console on the first serial port
        #[arg(long)]
        kernel_args: Option<String>,
        /// Operating system, for login and set-up
        #[arg(long, default_value = "linux")]
        os: String,
    },
    /// List images
    List {
        /// Print everything known of them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an image
    Remove {
        /// Name of the image
        name: String,
    },
}

/// A kernel of Debian's.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Kernel {
    /// Small; of the NIC models it drives virtio and vmxnet3
    Cloud,
    /// Drives every NIC model, boots a little slower
    Generic,
}

pub(crate) fn main(verb: &Verb) -> anyhow::Result<u8> {
    let cache = image::cache_dir()?;
    match verb {
        Verb::Build { name, packages, kernel, refresh } => {
            let options = BuildOptions {
                name: name.clone(),
                packages: packages.clone(),
                flavour: match kernel {
                    Kernel::Cloud => Flavour::Cloud,
                    Kernel::Generic => Flavour::Generic,
                },
                refresh: *refresh,
                cache_dir: cache,
                progress: &|step| crate::tell!("image {name}: {step}"),
            };
            let image = match image::build(&options) {
                Ok(image) => image,
                Err(error) => {
                    crate::tell!("error: {error}");
                    return Ok(if error.is_usage() { USAGE } else { FAILED });
                }
            };
            crate::say!(
                "image {} ready: {}, built {}",
                image.name,
                count(image.packages.len(), "package"),
                image.built
            );
        }
        Verb::Import { name, kernel, initrd, disk, kernel_args, os } => {
            let options = ImportOptions {
                name: name.clone(),
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                disk: disk.clone(),
                kernel_args: kernel_args.clone(),
                os: os.clone(),
            };
            match image::import(&options, &cache) {
                Ok(image) => crate::say!("image {} imported", image.name),
                Err(error) => {
                    crate::tell!("error: {error}");
                    // What the user gave is at fault, unless the cache could not take it.
                    return Ok(match error {
                        ImportError::Store(StoreError::Io { .. }) => FAILED,
                        _ => USAGE,
                    });
                }
            }
        }
        Verb::List { json } => {
            let images = image::list(&cache)?;
            if *json {
                crate::say!("{}", serde_json::to_string_pretty(&images)?);
                return Ok(0);
            }
            if images.is_empty() {
                crate::say!(
                    "no images in {}; make one with `tapestry image build`",
                    cache.display()
                );
            }
            for image in images {
                let extra = if image.extra_packages.is_empty() {
                    String::new()
                } else {
                    format!(" + {}", image.extra_packages.join(", "))
                };
                crate::say!("{:<12} {:<10} {}{extra}", image.name, image.os, image.built);
            }
        }
        Verb::Remove { name } => {
            image::remove(&cache, name)?;
            crate::say!("image {name} removed");
        }
    }
    Ok(0)
}
