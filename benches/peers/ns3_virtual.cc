// ns-3's default (virtual-time) simulator over a chain of CSMA links joined by learning bridges.
//
// Purpose: the peer beside which Tapestry's virtual time is measured. 10 Gbit/s, no delay,
// 1470-byte UDP datagrams from one end to the other, a datagram every 1300 ns. Packet metadata and
// checksums stay off.
//
// Usage: ns3_virtual NODES DATAGRAMS
// Prints: datagrams received, and seconds of wall time that Simulator::Run took.
//
// Build: g++ -std=c++17 -O2 -o ns3_virtual ns3_virtual.cc -lns3-core -lns3-network -lns3-csma \
//        -lns3-bridge -lns3-internet -lns3-applications

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "ns3/applications-module.h"
#include "ns3/bridge-helper.h"
#include "ns3/core-module.h"
#include "ns3/csma-helper.h"
#include "ns3/internet-module.h"
#include "ns3/network-module.h"

using namespace ns3;

int
main(int argc, char** argv)
{
    if (argc != 3)
    {
        std::fprintf(stderr, "usage: ns3_virtual NODES DATAGRAMS\n");
        return 2;
    }
    const uint32_t count = std::atoi(argv[1]);
    const uint32_t datagrams = std::atoi(argv[2]);

    NodeContainer nodes;
    nodes.Create(count);
    CsmaHelper csma;
    csma.SetChannelAttribute("DataRate", StringValue("10Gbps"));
    csma.SetChannelAttribute("Delay", TimeValue(Seconds(0)));
    std::vector<NetDeviceContainer> links;
    for (uint32_t i = 0; i + 1 < count; ++i)
    {
        links.push_back(csma.Install(NodeContainer(nodes.Get(i), nodes.Get(i + 1))));
    }
    for (uint32_t i = 1; i + 1 < count; ++i)
    {
        NetDeviceContainer ports(links[i - 1].Get(1), links[i].Get(0));
        BridgeHelper().Install(nodes.Get(i), ports);
    }
    NodeContainer ends(nodes.Get(0), nodes.Get(count - 1));
    InternetStackHelper().Install(ends);
    Ipv4AddressHelper addresses("10.0.0.0", "255.255.255.0");
    NetDeviceContainer devices(links.front().Get(0), links.back().Get(1));
    Ipv4InterfaceContainer interfaces = addresses.Assign(devices);

    UdpServerHelper server(5001);
    ApplicationContainer servers = server.Install(ends.Get(1));
    // One datagram well before the others: the addresses are resolved and the bridges have learned.
    UdpClientHelper client(interfaces.GetAddress(1), 5001);
    client.SetAttribute("PacketSize", UintegerValue(1470));
    client.SetAttribute("Interval", TimeValue(NanoSeconds(1300)));
    client.SetAttribute("MaxPackets", UintegerValue(1));
    client.Install(ends.Get(0));
    client.SetAttribute("MaxPackets", UintegerValue(datagrams));
    client.Install(ends.Get(0)).Start(Seconds(1));

    const auto start = std::chrono::steady_clock::now();
    Simulator::Run();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const auto received = DynamicCast<UdpServer>(servers.Get(0))->GetReceived();
    std::printf("%llu %.6f\n", static_cast<unsigned long long>(received), took.count());
    Simulator::Destroy();
    return 0;
}
