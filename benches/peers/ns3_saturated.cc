// Saturated CSMA in ns-3: stations on one segment that always have a frame to send.
//
// Purpose: the reference for throughput, fairness and back-offs of Tapestry's CSMA model
// (`tests/data/ns3-3.37-saturated.json`, compared by `tests/csma_saturated.rs`). Raw frames; each
// station's queue is kept at two frames or more, so that it never runs empty.
//
// Usage: ns3_saturated > ns3-3.37-saturated.json
//
// Build: g++ -std=c++17 -O2 -o ns3_saturated ns3_saturated.cc -lns3-core -lns3-network -lns3-csma

#include <cstdio>
#include <vector>

#include "ns3/core-module.h"
#include "ns3/csma-helper.h"
#include "ns3/csma-net-device.h"
#include "ns3/network-module.h"

using namespace ns3;

namespace
{

struct Station
{
    Ptr<NetDevice> device;
    Address to;
    uint32_t payload;
    uint64_t sent = 0;
    uint64_t backoffs = 0;
    uint64_t dropped = 0;

    void Feed()
    {
        device->Send(Create<Packet>(payload), to, 0x0800);
    }

    // Another frame takes the place of one that has left.
    void Done(Ptr<const Packet>)
    {
        ++sent;
        Feed();
    }

    void GivenUp(Ptr<const Packet>)
    {
        ++dropped;
        Feed();
    }

    void Backoff(Ptr<const Packet>)
    {
        ++backoffs;
    }
};

void
Scenario(uint32_t stations, const char* rate, uint32_t delayNs, uint32_t wireBytes, double seconds,
         uint32_t run, bool first)
{
    RngSeedManager::SetSeed(1);
    RngSeedManager::SetRun(run);
    NodeContainer nodes;
    nodes.Create(stations);
    CsmaHelper csma;
    csma.SetChannelAttribute("DataRate", StringValue(rate));
    csma.SetChannelAttribute("Delay", TimeValue(NanoSeconds(delayNs)));
    NetDeviceContainer devices = csma.Install(nodes);
    std::vector<Station> all(stations);
    for (uint32_t i = 0; i < stations; ++i)
    {
        Station& station = all[i];
        station.device = devices.Get(i);
        station.to = devices.Get((i + 1) % stations)->GetAddress();
        // Ethernet header and frame check sequence are ns-3's.
        station.payload = wireBytes - 18;
        station.device->TraceConnectWithoutContext("PhyTxEnd", MakeCallback(&Station::Done, &station));
        station.device->TraceConnectWithoutContext("PhyTxDrop", MakeCallback(&Station::GivenUp, &station));
        station.device->TraceConnectWithoutContext("MacTxBackoff", MakeCallback(&Station::Backoff, &station));
        for (int frame = 0; frame < 3; ++frame)
        {
            Simulator::ScheduleWithContext(i, Seconds(0), &Station::Feed, &station);
        }
    }
    Simulator::Stop(Seconds(seconds));
    Simulator::Run();
    Simulator::Destroy();
    std::printf("%s{\"stations\":%u,\"rate\":\"%s\",\"delay_ns\":%u,\"wire_bytes\":%u,\"seconds\":%g,"
                "\"run\":%u,\"sent\":[",
                first ? "" : ",\n", stations, rate, delayNs, wireBytes, seconds, run);
    for (uint32_t i = 0; i < stations; ++i)
    {
        std::printf("%s%llu", i ? "," : "", static_cast<unsigned long long>(all[i].sent));
    }
    std::printf("],\"backoffs\":[");
    for (uint32_t i = 0; i < stations; ++i)
    {
        std::printf("%s%llu", i ? "," : "", static_cast<unsigned long long>(all[i].backoffs));
    }
    std::printf("],\"dropped\":[");
    for (uint32_t i = 0; i < stations; ++i)
    {
        std::printf("%s%llu", i ? "," : "", static_cast<unsigned long long>(all[i].dropped));
    }
    std::printf("]}");
}

} // namespace

int
main()
{
    constexpr uint32_t RUNS = 20;
    std::printf("[");
    bool first = true;
    for (const uint32_t stations : {2, 5, 10, 20})
    {
        for (uint32_t run = 1; run <= RUNS; ++run)
        {
            Scenario(stations, "10Mbps", 1000, 1000, 2.0, run, first);
            first = false;
            Scenario(stations, "100Mbps", 500, 400, 0.2, run, first);
        }
    }
    std::printf("]\n");
    return 0;
}
