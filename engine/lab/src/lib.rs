//! Assembles a resolved topology into a running lab and gives the verdict.
