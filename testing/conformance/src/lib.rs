//! One scenario, three places: simulator, process provider, kernel.
