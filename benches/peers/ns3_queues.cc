// Queue disciplines of ns-3 3.37 under the arrivals of `tests/ns3_queues.rs`.
//
//   g++ -O2 -std=c++17 benches/peers/ns3_queues.cc -o ns3_queues $(pkg-config --cflags --libs ns3-traffic-control)
//   ./ns3_queues > tests/data/ns3-3.37-queues.json
//
// One server of 10 Mbit/s, frames of 1000 bytes, 60 s. Times between arrivals are uniform between 0
// and twice a mean that changes every second; numbers come from splitmix64, so that both sides
// have the same arrivals. Frame 7 of every 20 is of flow 0, the others are of flows 1 to 3.

#include "ns3/core-module.h"
#include "ns3/network-module.h"
#include "ns3/traffic-control-module.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <vector>

using namespace ns3;

namespace
{

const uint32_t FRAME_BYTES = 1000;
const uint64_t SERVICE_NS = 800000;
const uint64_t END_NS = 60000000000;
// Means of the times between arrivals, in ns, one for each second in turn: loads of 0.6, 1.1, 0.9, 1.4.
const uint64_t MEANS_NS[] = {1333333, 727272, 888888, 571428};
const uint64_t SEEDS = 8;
const uint32_t FLOWS = 4;

class Item : public QueueDiscItem
{
  public:
    Item(Ptr<Packet> packet, uint32_t flow)
        : QueueDiscItem(packet, Address(), 0),
          m_flow(flow)
    {
    }

    void AddHeader() override
    {
    }

    bool Mark() override
    {
        return false;
    }

    uint32_t Hash(uint32_t) const override
    {
        return m_flow;
    }

    uint32_t m_flow;
};

uint64_t
SplitMix(uint64_t& state)
{
    state += 0x9e3779b97f4a7c15ULL;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

struct Run
{
    Ptr<QueueDisc> queue;
    uint64_t random;
    uint64_t arrivals = 0;
    bool busy = false;
    std::vector<uint64_t> drops = std::vector<uint64_t>(FLOWS);
    std::vector<std::vector<uint64_t>> delays = std::vector<std::vector<uint64_t>>(FLOWS);

    void Arrive()
    {
        uint64_t number = arrivals++;
        uint32_t flow = number % 20 == 7 ? 0 : 1 + number % 3;
        queue->Enqueue(Create<Item>(Create<Packet>(FRAME_BYTES), flow));
        if (!busy)
        {
            Serve();
        }
        Next();
    }

    void Next()
    {
        uint64_t now = Simulator::Now().GetNanoSeconds();
        uint64_t mean = MEANS_NS[(now / 1000000000) % 4];
        uint64_t wait = SplitMix(random) % (2 * mean);
        if (now + wait < END_NS)
        {
            Simulator::Schedule(NanoSeconds(wait), &Run::Arrive, this);
        }
    }

    void Serve()
    {
        Ptr<QueueDiscItem> item = queue->Dequeue();
        busy = item != nullptr;
        if (busy)
        {
            uint32_t flow = DynamicCast<Item>(item)->m_flow;
            delays[flow].push_back((Simulator::Now() - item->GetTimeStamp()).GetNanoSeconds());
            Simulator::Schedule(NanoSeconds(SERVICE_NS), &Run::Serve, this);
        }
    }

    void Drop(Ptr<const QueueDiscItem> item)
    {
        drops[DynamicCast<const Item>(item)->m_flow]++;
    }
};

void
PrintFlows(const char* name, const std::vector<uint64_t>& values)
{
    std::printf("\"%s\": [", name);
    for (size_t i = 0; i < values.size(); i++)
    {
        std::printf("%s%llu", i ? ", " : "", (unsigned long long)values[i]);
    }
    std::printf("]");
}

void
Measure(const char* name, const std::function<Ptr<QueueDisc>()>& make, bool last)
{
    std::printf("  \"%s\": [\n", name);
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
    {
        RngSeedManager::SetSeed(1);
        RngSeedManager::SetRun(seed);
        Run run;
        run.random = seed;
        run.queue = make();
        run.queue->Initialize();
        run.queue->TraceConnectWithoutContext("Drop", MakeCallback(&Run::Drop, &run));
        run.Next();
        Simulator::Stop(Seconds(70));
        Simulator::Run();
        Simulator::Destroy();
        std::vector<uint64_t> means;
        std::vector<uint64_t> all;
        for (auto& delays : run.delays)
        {
            double sum = 0;
            for (uint64_t delay : delays)
            {
                sum += delay;
                all.push_back(delay);
            }
            means.push_back(delays.empty() ? 0 : (uint64_t)(sum / delays.size()));
        }
        std::sort(all.begin(), all.end());
        std::printf("    {\"seed\": %llu, \"arrivals\": %llu, ",
                    (unsigned long long)seed,
                    (unsigned long long)run.arrivals);
        PrintFlows("drops", run.drops);
        std::printf(", ");
        PrintFlows("mean_delay_ns", means);
        std::printf(", \"p99_delay_ns\": %llu}%s\n",
                    (unsigned long long)all[all.size() * 99 / 100],
                    seed < SEEDS ? "," : "");
    }
    std::printf("  ]%s\n", last ? "" : ",");
}

template <typename T, typename... Attributes>
std::function<Ptr<QueueDisc>()>
Make(Attributes... attributes)
{
    return [=]() -> Ptr<QueueDisc> { return CreateObjectWithAttributes<T>(attributes...); };
}

} // namespace

int
main()
{
    Time::SetResolution(Time::NS);
    std::printf("{\n");
    Measure("drop-tail", Make<FifoQueueDisc>("MaxSize", StringValue("50p")), false);
    auto red = [](bool gentle, bool adaptive) {
        return Make<RedQueueDisc>("MaxSize", StringValue("100p"),
                                  "MinTh", DoubleValue(5),
                                  "MaxTh", DoubleValue(15),
                                  "QW", DoubleValue(0.002),
                                  "LInterm", DoubleValue(50),
                                  "MeanPktSize", UintegerValue(1000),
                                  "LinkBandwidth", StringValue("10Mbps"),
                                  "Wait", BooleanValue(false),
                                  "Gentle", BooleanValue(gentle),
                                  "AdaptMaxP", BooleanValue(adaptive),
                                  "Bottom", DoubleValue(0.01));
    };
    Measure("red", red(false, false), false);
    Measure("red-gentle", red(true, false), false);
    Measure("red-adaptive", red(true, true), false);
    Measure("codel", Make<CoDelQueueDisc>("MaxSize", StringValue("1000p")), false);
    Measure(
        "fq-codel",
        []() -> Ptr<QueueDisc> {
            auto queue = CreateObjectWithAttributes<FqCoDelQueueDisc>(
                "MaxSize", StringValue("10240p"), "UseEcn", BooleanValue(false));
            queue->SetQuantum(1514);
            return queue;
        },
        false);
    Measure(
        "fq-codel-short",
        []() -> Ptr<QueueDisc> {
            auto queue = CreateObjectWithAttributes<FqCoDelQueueDisc>(
                "MaxSize", StringValue("50p"), "UseEcn", BooleanValue(false));
            queue->SetQuantum(1514);
            return queue;
        },
        false);
    Measure("pie",
            Make<PieQueueDisc>("MaxSize", StringValue("1000p"),
                               "MaxBurstAllowance", StringValue("150ms")),
            true);
    std::printf("}\n");
}
