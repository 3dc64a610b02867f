//! Any change, one after the other, comes to what adopting its end comes to.
