//! Which worker a link goes to.
//!
//! Purpose: links that meet in an in-process device form a group and stay together; groups are
//! spread so that the most loaded worker has as little as possible. A group's load is taken to be
//! its number of ports, since moving frames across the kernel's border costs the most. Where it costs
//! no balance, groups that follow each other in the file share a worker: in a chain a frame then
//! stays on its core from one link to the next instead of changing it with each. Reference: Graham's
//! longest-processing-time rule; the linear partition problem.

/// One link, as far as spreading is concerned.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    /// Number of ports.
    pub(crate) ports: usize,
    /// Devices it attaches to.
    pub(crate) devices: Vec<usize>,
}

/// The worker of each link, numbered from 0 without gaps; at most `workers` of them (at least 1).
pub(crate) fn spread(links: &[Shape], devices: usize, workers: usize) -> Vec<usize> {
    let groups = groups(links, devices);
    let count = groups.iter().max().map_or(0, |most| most + 1);
    let mut weights = vec![0; count];
    for (link, &group) in links.iter().zip(&groups) {
        weights[group] += link.ports.max(1);
    }
    let workers = workers.clamp(1, count.max(1));
    let (scattered, least) = longest_first(&weights, workers);
    let worker_of = in_runs(&weights, workers, least).unwrap_or(scattered);
    groups.into_iter().map(|group| worker_of[group]).collect()
}

/// The worker of each group by the longest-processing-time rule, and the greatest load of a worker.
fn longest_first(weights: &[usize], workers: usize) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // A stable sort: equal groups keep the order of the file, so placement is reproducible.
    order.sort_by_key(|&group| std::cmp::Reverse(weights[group]));
    let mut loads = vec![0; workers];
    let mut worker_of = vec![0; weights.len()];
    for group in order {
        let lightest = (0..workers).min_by_key(|&worker| loads[worker]).unwrap_or(0);
        loads[lightest] += weights[group];
        worker_of[group] = lightest;
    }
    (worker_of, loads.into_iter().max().unwrap_or(0))
}

/// The worker of each group when each worker takes groups that follow each other, if that can be
/// done with no more than `greatest` for each. Each takes its share of what the ones before it left,
/// rounded to whole groups.
fn in_runs(weights: &[usize], workers: usize, greatest: usize) -> Option<Vec<usize>> {
    let mut rest: usize = weights.iter().sum();
    let (mut worker, mut load) = (0, 0);
    let place = |&weight: &usize| {
        let left = workers - worker;
        if left > 1 && load > 0 && (2 * load + weight) * left > 2 * rest {
            rest -= load;
            (worker, load) = (worker + 1, 0);
        }
        load += weight;
        (load <= greatest).then_some(worker)
    };
    weights.iter().map(place).collect()
}

/// The group of each link, numbered from 0 in the order of their first link.
fn groups(links: &[Shape], devices: usize) -> Vec<usize> {
    // Union-find over links, then devices.
    let mut parents: Vec<usize> = (0..links.len() + devices).collect();
    for (index, link) in links.iter().enumerate() {
        for device in &link.devices {
            let (a, b) = (root(&mut parents, index), root(&mut parents, links.len() + device));
            parents[a.max(b)] = a.min(b);
        }
    }
    let mut numbers = vec![None; parents.len()];
    let mut next = 0;
    (0..links.len())
        .map(|index| {
            *numbers[root(&mut parents, index)].get_or_insert_with(|| {
                next += 1;
                next - 1
            })
        })
        .collect()
}

/// The representative of an item's set; shortens the way to it.
fn root(parents: &mut [usize], mut item: usize) -> usize {
    while parents[item] != item {
        parents[item] = parents[parents[item]];
        item = parents[item];
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(ports: usize, devices: &[usize]) -> Shape {
        Shape { ports, devices: devices.to_vec() }
    }

    #[test]
    fn links_that_meet_in_a_device_share_a_worker() {
        let links = [link(1, &[0]), link(2, &[]), link(0, &[1, 0]), link(1, &[1]), link(1, &[2])];
        assert_eq!(groups(&links, 3), [0, 1, 0, 0, 2]);
        let workers = spread(&links, 3, 8);
        assert_eq!(workers[0], workers[2]);
        assert_eq!(workers[0], workers[3]);
        assert_ne!(workers[0], workers[1]);
        assert_ne!(workers[1], workers[4]);
    }

    #[test]
    fn load_is_balanced_and_workers_are_numbered_without_gaps() {
        let chain: Vec<Shape> = (0..9).map(|_| link(2, &[])).collect();
        let workers = spread(&chain, 0, 2);
        assert_eq!(workers, [0, 0, 0, 0, 0, 1, 1, 1, 1], "neighbours stay together");
        assert_eq!(spread(&chain, 0, 4), [0, 0, 1, 1, 2, 2, 2, 3, 3]);
        assert_eq!(spread(&chain[..4], 0, 3), [0, 1, 1, 2]);
        for workers in 1..12 {
            let placed = spread(&chain, 0, workers);
            let used = placed.iter().max().map_or(0, |most| most + 1);
            assert_eq!(used, workers.min(chain.len()), "{placed:?}");
            let load = |worker| placed.iter().filter(|&&w| w == worker).count();
            assert!((0..used).all(|worker| load(worker) <= chain.len().div_ceil(used)));
        }
        // One heavy LAN on one worker, the pairs on the other.
        let mixed = [link(2, &[]), link(8, &[]), link(2, &[]), link(2, &[])];
        assert_eq!(spread(&mixed, 0, 2), [1, 0, 1, 1]);
    }

    #[test]
    fn no_more_workers_than_groups_and_none_for_nothing() {
        assert_eq!(spread(&[link(2, &[])], 0, 4), [0]);
        assert_eq!(spread(&[link(2, &[]), link(2, &[])], 0, 0), [0, 0]);
        assert_eq!(spread(&[], 0, 4), [0; 0]);
    }
}
