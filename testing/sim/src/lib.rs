//! A deterministic simulator that hosts the engine.
