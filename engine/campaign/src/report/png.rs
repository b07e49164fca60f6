//! SVG to PNG, with a font of our own: the same picture on every machine.

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use super::ReportError;
use super::figures::Figure;

/// Dots per unit of the SVG: sharp on paper and on dense screens.
const SCALE: f32 = 2.0;

pub(super) fn encode(figure: &Figure) -> Result<Vec<u8>, ReportError> {
    let wrong = |reason: String| ReportError::Plot { figure: figure.id.clone(), reason };
    let mut fonts = Database::new();
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family =
        fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
    if let Some(family) = family {
        fonts.set_sans_serif_family(&family);
        fonts.set_serif_family(&family);
    }
    let options = Options { fontdb: Arc::new(fonts), ..Options::default() };
    let tree = Tree::from_str(&figure.svg, &options).map_err(|error| wrong(error.to_string()))?;
    let size =
        tree.size().to_int_size().scale_by(SCALE).ok_or_else(|| wrong("no size".to_owned()))?;
    let mut pixels = Pixmap::new(size.width(), size.height())
        .ok_or_else(|| wrong("the picture is too large".to_owned()))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| wrong(error.to_string()))
}
