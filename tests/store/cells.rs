//! Whatever way events come in, the cells are those of the blocks that stand.
