//! Other people's tools.
