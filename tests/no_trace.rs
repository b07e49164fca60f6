//! A run that is killed leaves nothing on the host but its run directory, whenever it is killed;
//! and `tapestry clean` removes that, and nothing else.

mod common;

use common::{Place, have_root};

#[test]
fn clean_of_nothing_says_so() {
    if have_root() {
        let said = Place::new().call(&["clean"]).expect(0).text();
        assert!(said.contains("nothing to clean"), "{said}");
    }
}
